/*
 * code.c: fetches machine code and keeps it decoded, by address, until told to forget. Which file
 * executes an instruction is decided here; how is not known.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/wave.h"

#define CODE_PAGE_BYTES 4096u
#define CODE_SLOTS      (CODE_PAGE_BYTES / 4)
#define CODE_HASH       256u
#define CODE_CHUNK      64u
#define CODE_BYTES_MAX  20u

struct code_page {
    u64 base;
    struct code_page *next;
    struct uop *uop[CODE_SLOTS];
};

struct uop_chunk {
    struct uop_chunk *next;
    u32 used;
    struct uop uop[CODE_CHUNK];
};

struct code_cache {
    struct code_page *hash[CODE_HASH];
    struct uop_chunk *chunks;
};

struct code_cache *code_create(void)
{
    struct code_cache *cache = calloc(1, sizeof *cache);

    CHECK(cache);
    return cache;
}

void code_forget(struct code_cache *cache)
{
    for (u32 n = 0; n < CODE_HASH; n++)
        for (struct code_page *page = cache->hash[n], *next; page; page = next) {
            next = page->next;
            free(page);
        }
    for (struct uop_chunk *chunk = cache->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    memset(cache, 0, sizeof *cache);
}

void code_destroy(struct code_cache *cache)
{
    code_forget(cache);
    free(cache);
}

static struct code_page *page_of(struct code_cache *cache, u64 base)
{
    struct code_page **place = &cache->hash[base / CODE_PAGE_BYTES % CODE_HASH], *page;

    for (page = *place; page; page = page->next)
        if (page->base == base)
            return page;
    page = calloc(1, sizeof *page);
    CHECK(page);
    page->base = base;
    page->next = *place;
    *place = page;
    return page;
}

static struct uop *uop_new(struct code_cache *cache)
{
    if (!cache->chunks || cache->chunks->used == CODE_CHUNK) {
        struct uop_chunk *chunk = aligned_alloc(_Alignof(struct uop), sizeof *chunk);
        CHECK(chunk);
        memset(chunk, 0, sizeof *chunk);
        chunk->next = cache->chunks;
        cache->chunks = chunk;
    }
    return &cache->chunks->uop[cache->chunks->used++];
}

/* Returns the bytes read: fewer than asked for where memory ends. */
static u32 fetch(struct wave *wave, u64 pc, u8 code[CODE_BYTES_MAX])
{
    const struct compute_memory *memory = &wave->compute->memory;
    u32 done = 0;

    while (done < CODE_BYTES_MAX) {
        u32 bytes = (u32)min_u64(CODE_BYTES_MAX - done, COMPUTE_LINE - (pc + done) % COMPUTE_LINE);
        struct compute_access access = {pc + done, wave->group->wgp, bytes, COMPUTE_FETCH};
        if (!memory->load(memory->ctx, &access, code + done, NULL))
            break;
        done += bytes;
    }
    return done;
}

static bool choose(struct uop *uop)
{
    switch (uop->inst.format) {
    case ISA_SOP1:
    case ISA_SOP2:
    case ISA_SOPC:
    case ISA_SOPK:
    case ISA_SOPP:
        return salu_decode(uop) || flow_decode(uop);
    case ISA_SMEM:
        return smem_decode(uop);
    case ISA_DS:
        return lds_decode(uop);
    case ISA_FLAT:
    case ISA_GLOBAL:
    case ISA_SCRATCH:
    case ISA_MUBUF:
        return vmem_decode(uop);
    default:
        return valu_decode(uop) || cross_decode(uop) || wmma_decode(uop);
    }
}

static struct uop *decode(struct wave *wave, u64 pc)
{
    struct code_cache *cache = wave->compute->code;
    u8 code[CODE_BYTES_MAX];
    u32 bytes = pc & 3 ? 0 : fetch(wave, pc, code);
    struct uop *uop;

    if (!bytes) {
        wave_fail(wave, COMPUTE_VIOLATION, "fetch-fault", "no instruction at %lx", pc);
        wave->compute->failure.address = pc;
        return NULL;
    }
    uop = uop_new(cache);
    if (isa_decode(code, bytes, &uop->inst) != OK &&
        isa_decode_halves(code, bytes, &uop->inst) != OK) {
        wave_fail(wave, COMPUTE_ILLEGAL, "illegal-instruction", "no such encoding");
        return NULL;
    }
    uop->row = &isa_rows[uop->inst.op];
    uop->at = pc;
    if (uop->inst.format == ISA_VOPD)
        uop->y = uop_new(cache);
    if (!choose(uop)) {
        wave_fail(wave, COMPUTE_ILLEGAL, "unsupported-instruction", "the model does not know it");
        return NULL;
    }
    strict_decode(uop);
    return uop;
}

struct uop *code_at(struct wave *wave, u64 pc)
{
    struct code_page *page = wave->code;
    struct uop **place;

    if (!page || page->base != (pc & ~(u64)(CODE_PAGE_BYTES - 1))) {
        page = page_of(wave->compute->code, pc & ~(u64)(CODE_PAGE_BYTES - 1));
        wave->code = page;
    }
    place = &page->uop[pc % CODE_PAGE_BYTES / 4];
    if (!*place || pc & 3)
        *place = decode(wave, pc);
    return *place;
}
