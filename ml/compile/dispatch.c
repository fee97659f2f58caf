/*
 * dispatch.c: launches between two barriers become one dispatch: its argument block, the code that
 * tells its groups apart, the most that any of its launches needs. Equal lists of kernels share
 * that code. Only for targets with groups.
 */
#include "ml/compile/priv.h"

#define VGPR_BLOCKS 0x3fu /* field of COMPUTE_PGM_RSRC1 */

static void need(struct dispatch *d, const struct launch *l)
{
    u32 blocks = max_u32(d->rsrc[0] & VGPR_BLOCKS, l->rsrc[0] & VGPR_BLOCKS);

    d->waves = max_u32(d->waves, l->waves);
    d->group_bytes = max_u32(d->group_bytes, l->group_bytes);
    for (u32 i = 0; i < ARRAY_LEN(d->rsrc); i++)
        d->rsrc[i] |= l->rsrc[i];
    d->rsrc[0] = (d->rsrc[0] & ~VGPR_BLOCKS) | blocks;
}

/* The code depends on nothing else. */
static bool same_kernels(const struct program *p, const struct dispatch *a,
                         const struct dispatch *b)
{
    const struct launch *la = &p->launch[a->launch_first], *lb = &p->launch[b->launch_first];
    bool same = a->launch_count == b->launch_count;

    for (u32 i = 0; same && i < a->launch_count; i++)
        same = la[i].code_offset == lb[i].code_offset && la[i].arg_count == lb[i].arg_count;
    return same;
}

static err find_code(struct program *p, struct dispatch *d, struct arena *arena,
                     struct code_out *out)
{
    const struct launch *l = &p->launch[d->launch_first];
    struct entry_kernel kernel[DISPATCH_LAUNCHES_MAX];

    d->code_offset = l->code_offset;
    if (d->launch_count == 1)
        return OK;
    for (const struct dispatch *other = p->dispatch; other < d; other++)
        if (same_kernels(p, other, d)) {
            d->code_offset = other->code_offset;
            return OK;
        }
    for (u32 i = 0; i < d->launch_count; i++)
        kernel[i] = (struct entry_kernel){.code_offset = l[i].code_offset,
                                          .waves = l[i].waves,
                                          .args_at = 8 * (l[i].arg_first - d->arg_first)};
    d->code_offset = (u32)out->len;
    return rdna_entry(kernel, d->launch_count, arena, out);
}

u32 dispatch_launches(const struct schedule *schedule, u32 first)
{
    u32 count = 1;

    while (count < DISPATCH_LAUNCHES_MAX && first + count < schedule->kernel_count &&
           !schedule->kernel[first + count].barrier)
        count++;
    return count;
}

void dispatch_open(struct program *p, u32 first, u32 count)
{
    u32 entries = p->external_count + p->buffer_count + p->sym_count;

    p->dispatch[p->dispatch_count++] =
        (struct dispatch){.arg_first = p->arg_count, .launch_first = first, .launch_count = count};
    for (u32 i = 0; count > 1 && i < count; i++)
        p->arg[p->arg_count++] = entries + first + i;
}

err dispatch_close(struct program *p, struct arena *arena, struct code_out *out)
{
    struct dispatch *d = &p->dispatch[p->dispatch_count - 1];
    const struct launch *l = &p->launch[d->launch_first];

    d->barrier = l->barrier;
    for (u32 i = 0; i < d->launch_count; i++)
        need(d, &l[i]);
    return find_code(p, d, arena, out);
}
