/*
 * groups.c: workgroups and waves come into being with their initial state, meet at barriers, end.
 * Knows no instruction and no turn. Follows chapter 3 of AMD's "RDNA3 Instruction Set Architecture"
 * reference and LLVM's AMDGPU guide (kernel descriptor, initial registers).
 */
#include <stdlib.h>
#include <string.h>

#include "sim/wave.h"

/* ---- waves ---- */

void wave_mode_set(struct wave *wave, u32 mode)
{
    wave->mode = mode;
    wave->plain_mode = (mode & 0xff) == MODE_PLAIN;
}

static u32 slot_take(struct compute *compute)
{
    u32 slot = compute->options.fast ? 0 : (u32)(compute_random(compute) % compute->slot_count);

    while (compute->slots_used[slot / 64] >> slot % 64 & 1)
        slot = (slot + 1) % compute->slot_count;
    compute->slots_used[slot / 64] |= 1ull << slot % 64;
    return slot;
}

static void wave_scratch(struct wave *wave)
{
    struct compute *compute = wave->compute;
    u32 bytes = bit_field(compute->dispatch.tmpring, 12, 15) * 256;

    wave->slot = slot_take(compute);
    wave->scratch = compute->dispatch.scratch + (u64)(compute->slot_first + wave->slot) * bytes;
    wave->scratch_bytes = compute->dispatch.rsrc2 & 1 ? bytes / LANES : 0;
}

static struct wave *wave_new(struct compute *compute)
{
    struct wave *wave = compute->free_waves;

    if (wave) {
        compute->free_waves = wave->next;
        return wave;
    }
    wave = aligned_alloc(64, sizeof *wave);
    CHECK(wave);
    memset(wave, 0, sizeof *wave);
    return wave;
}

/* User data, then the group's place and size where asked for. */
static u32 scalars_set(struct wave *wave)
{
    const struct compute_dispatch *dispatch = &wave->compute->dispatch;
    const struct group *group = wave->group;
    u32 used = min_u32(bit_field(dispatch->rsrc2, 1, 5), ARRAY_LEN(dispatch->user_data));

    memcpy(wave->s, dispatch->user_data, used * sizeof(u32));
    for (u32 d = 0; d < 3; d++)
        if (bit_field(dispatch->rsrc2, 7 + d, 1))
            wave->s[used++] = group->id[d];
    if (bit_field(dispatch->rsrc2, 10, 1))
        wave->s[used++] = group->wave_count | (wave->index ? 0 : 1u << 31);
    return used;
}

static void items_set(struct wave *wave)
{
    const u32 *size = wave->group->size;
    u32 dims = bit_field(wave->compute->dispatch.rsrc2, 11, 2), active = 0;

    for (u32 i = 0; i < LANES; i++) {
        u32 item = wave->index * LANES + i;
        u32 x = item % size[0], y = item / size[0] % size[1], z = item / (size[0] * size[1]);

        if (z >= size[2])
            continue;
        active |= 1u << i;
        wave->v[0][i] = x | (dims > 0 ? y << 10 : 0) | (dims > 1 ? z << 20 : 0);
    }
    wave->EXEC = active;
}

static void wave_start(struct compute *compute, struct group *group, u32 index)
{
    struct wave *wave = wave_new(compute);
    const struct compute_dispatch *dispatch = &compute->dispatch;
    bool strict = !compute->options.fast;
    u32 scalars;

    group->wave[index] = wave;
    wave->compute = compute;
    wave->group = group;
    wave->index = index;
    wave->state = WAVE_RUNNING;
    wave->vgprs = compute->vgprs;
    wave->at = wave->pc = dispatch->code;
    wave->scc = wave->trap_status = 0;
    wave->privileged = bit_field(dispatch->rsrc1, 20, 1);
    wave->issued = wave->epoch = 0;
    wave->code = NULL;
    wave->running = NULL;
    wave_mode_set(wave, bit_field(dispatch->rsrc1, 12, 8) | bit_field(dispatch->rsrc1, 21, 1) << 8 |
                            bit_field(dispatch->rsrc1, 23, 1) << 9);
    for (u32 n = 0; strict && n < wave->vgprs * LANES; n++)
        wave->v[n / LANES][n % LANES] = (u32)compute_random(compute);
    for (u32 n = 0; n < SCALARS; n++)
        wave->s[n] = strict ? (u32)compute_random(compute) : 0;
    wave->s[ISA_NULL] = 0;
    wave_scratch(wave);
    scalars = scalars_set(wave);
    items_set(wave);
    if (strict)
        wave->strict = strict_create(wave, scalars);
    compute->ledger.waves++;
}

/* ---- workgroups ---- */

static struct group *group_new(struct compute *compute)
{
    struct group *group = compute->free_groups;

    if (group) {
        compute->free_groups = group->next;
    } else {
        group = calloc(1, sizeof *group);
        CHECK(group);
        group->lds = calloc(1, LDS_BYTES_MAX);
        CHECK(group->lds);
        if (!compute->options.fast) {
            group->words = calloc(LDS_BYTES_MAX / 4, sizeof *group->words);
            group->written = calloc(LDS_BYTES_MAX / 8, 1);
            CHECK(group->words && group->written);
        }
    }
    group->lds_bytes = compute->lds_bytes;
    if (!compute->options.fast) {
        memset(group->words, 0, group->lds_bytes / 4 * sizeof *group->words);
        memset(group->written, 0, group->lds_bytes / 8);
        for (u32 n = 0; n < group->lds_bytes; n += 8) {
            u64 garbage = compute_random(compute);
            memcpy(group->lds + n, &garbage, 8);
        }
    }
    return group;
}

static u32 wgp_take(struct compute *compute)
{
    u32 wgp = (u32)(compute_random(compute) % compute->options.wgps);

    while (compute->wgp_groups[wgp] >= compute->groups_per_wgp)
        wgp = (wgp + 1) % compute->options.wgps;
    compute->wgp_groups[wgp]++;
    return wgp;
}

static void group_start(struct compute *compute, u64 number)
{
    const struct compute_dispatch *dispatch = &compute->dispatch;
    struct group *group = group_new(compute);
    u32 items = 1;

    for (u32 d = 0; d < 3; d++) {
        u32 at = (u32)(number % dispatch->groups[d]);
        bool last = at + 1 == dispatch->groups[d] && dispatch->last_size[d];

        number /= dispatch->groups[d];
        group->id[d] = dispatch->first[d] + at;
        group->size[d] = last ? dispatch->last_size[d] : dispatch->group_size[d];
        items *= group->size[d];
    }
    group->wgp = wgp_take(compute);
    group->wave_count = group->live = (u32)div_up(items, LANES);
    group->waiting = 0;
    for (u32 n = 0; n < group->wave_count; n++)
        wave_start(compute, group, n);
    compute->group[compute->resident++] = group;
    compute->ledger.groups++;
}

void compute_group_free(struct compute *compute, struct group *group)
{
    for (u32 n = 0; n < group->wave_count; n++) {
        struct wave *wave = group->wave[n];
        compute->slots_used[wave->slot / 64] &= ~(1ull << wave->slot % 64);
        strict_end(wave);
        wave->next = compute->free_waves;
        compute->free_waves = wave;
    }
    compute->wgp_groups[group->wgp]--;
    group->next = compute->free_groups;
    compute->free_groups = group;
}

bool compute_admit(struct compute *compute)
{
    while (compute->resident < min_u32(compute->resident_wish, compute->resident_max)) {
        u64 turn = __atomic_fetch_add(compute->next_group, 1, __ATOMIC_RELAXED), number;

        if (turn > compute->order_mask)
            return compute->resident;
        number = (turn * compute->order_factor + compute->order_start) & compute->order_mask;
        if (number < compute->group_count)
            group_start(compute, number);
    }
    return true;
}

static void barrier_release(struct group *group)
{
    for (u32 n = 0; n < group->wave_count; n++)
        if (group->wave[n]->state == WAVE_BARRIER)
            group->wave[n]->state = WAVE_RUNNING;
    group->waiting = 0;
}

void wave_barrier(struct wave *wave)
{
    struct group *group = wave->group;

    if (!group->waiting)
        group->first_wait_pc = wave->at;
    else if (group->first_wait_pc != wave->at)
        wave_find(wave, "barrier-divergence", "other waves of the group wait at %lx",
                  group->first_wait_pc);
    wave->epoch++;
    wave->compute->ledger.barriers += !group->waiting;
    wave->state = WAVE_BARRIER;
    if (++group->waiting == group->live)
        barrier_release(group);
}

void wave_end(struct wave *wave)
{
    struct group *group = wave->group;

    if (wave->strict)
        strict_wait(wave, 0, 0, 0);
    wave->state = WAVE_ENDED;
    if (--group->live && group->waiting == group->live)
        barrier_release(group);
}
