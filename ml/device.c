/*
 * device.c: what is the same on every device: a program's tables, and what a run writes into them.
 * Must not know who computes.
 */
#include "ml/device_priv.h"

/* Where the launches' entries of the table begin. */
static u32 launch_entry(const struct program *p)
{
    return p->external_count + p->buffer_count + p->sym_count;
}

static u32 entries(const struct program *p)
{
    return launch_entry(p) + p->launch_count;
}

usize loaded_bytes(const struct program *p)
{
    return entries(p) * 16ull + p->arg_count * 12ull + p->launch_count * (sizeof *p->launch + 8) +
           p->dispatch_count * sizeof *p->dispatch + p->buffer_count * sizeof *p->buffer + 4 * KIB;
}

static void *copy(struct arena *arena, const void *from, usize bytes)
{
    void *to = arena_alloc(arena, bytes, 8);

    CHECK(to);
    return memcpy(to, from, bytes);
}

void loaded_init(struct loaded *r, struct device *device, const struct program *p,
                 struct arena *arena)
{
    r->device = device;
    r->program = *p;
    r->program.launch = copy(arena, p->launch, p->launch_count * sizeof *p->launch);
    r->program.dispatch = copy(arena, p->dispatch, p->dispatch_count * sizeof *p->dispatch);
    r->program.buffer = copy(arena, p->buffer, p->buffer_count * sizeof *p->buffer);
    r->program.arg = copy(arena, p->arg, p->arg_count * sizeof *p->arg);
    r->table = arena_new(arena, u64, entries(p));
    r->cpu = arena_new(arena, u8 *, entries(p));
    r->args = arena_new(arena, u64, p->arg_count);
    r->items = arena_new(arena, u64, p->launch_count);
    CHECK(r->items);
}

/* ---- a run ---- */

static u64 launch_items(const struct launch *l, const u32 *sym_value)
{
    u64 items = 1;

    for (u32 a = 0; a < l->grid_rank; a++) {
        dim extent = l->grid[a];
        u64 value = dim_is_sym(extent) ? sym_value[dim_sym_idx(extent)] : (u64)extent.v;
        items *= div_up(value, l->grid_divisor[a]);
    }
    return items;
}

/* The items of a dispatch up to the end of each of its launches. */
static void set_ends(struct loaded *r, const struct dispatch *d)
{
    u64 *end = r->table + launch_entry(&r->program) + d->launch_first;

    for (u32 i = 0; i < d->launch_count; i++)
        end[i] = r->items[d->launch_first + i] + (i ? end[i - 1] : 0);
}

u64 loaded_groups(const struct loaded *r, const struct dispatch *d)
{
    return r->table[launch_entry(&r->program) + d->launch_first + d->launch_count - 1];
}

void device_start(struct device *d, struct loaded *r, const u32 *sym_value)
{
    const struct program *p = &r->program;

    CHECK(r->device == d);
    for (u32 i = 0; i < p->sym_count; i++) {
        CHECK(sym_value[i] <= p->sym[i].bound);
        r->table[p->external_count + p->buffer_count + i] = sym_value[i];
    }
    for (u32 l = 0; l < p->launch_count; l++)
        r->items[l] = launch_items(&p->launch[l], sym_value);
    for (u32 i = 0; i < p->dispatch_count; i++)
        set_ends(r, &p->dispatch[i]);
    for (u32 i = 0; i < p->arg_count; i++)
        r->args[i] = r->table[p->arg[i]];
    d->ops->start(d, r);
}

err device_advance(struct device *d, u64 deadline_ns)
{
    return d->ops->advance(d, deadline_ns);
}

void *device_output(const struct loaded *r, u32 output)
{
    CHECK(output < r->program.output_count);
    return r->cpu[r->program.output_arg[output]];
}

/* ---- memory ---- */

struct target device_target(struct device *d)
{
    return d->ops->target(d);
}

u64 device_bytes_free(struct device *d)
{
    return d->ops->bytes_free(d);
}

err device_load(struct device *d, const struct program *program, struct loaded **out)
{
    return d->ops->load(d, program, out);
}

err device_alloc(struct loaded *r, u32 external, u64 bytes, bool input)
{
    CHECK(external < r->program.external_count);
    return r->device->ops->alloc(r, external, bytes, input);
}

void *device_input(const struct loaded *r, u32 external)
{
    CHECK(external < r->program.external_count && r->cpu[external]);
    return r->cpu[external];
}

void device_share(struct loaded *r, struct loaded *from)
{
    u32 count = r->program.external_count;

    CHECK(r->device == from->device && count == from->program.external_count);
    memcpy(r->table, from->table, count * sizeof *r->table);
    memcpy(r->cpu, from->cpu, count * sizeof *r->cpu);
    r->inputs = from;
}

u64 device_window_bytes(struct device *d, u64 least)
{
    return d->ops->window_bytes(d, least);
}

u8 *device_window(struct loaded *r, u32 external, u64 offset, u64 bytes)
{
    CHECK(external < r->program.external_count && r->table[external]);
    return r->device->ops->window(r, external, offset, bytes);
}

err device_send(struct loaded *r)
{
    return r->device->ops->send ? r->device->ops->send(r) : OK;
}

err device_sent(struct loaded *r)
{
    return r->device->ops->sent ? r->device->ops->sent(r) : OK;
}

err device_zero(struct loaded *r, u32 external, u64 offset, u64 bytes)
{
    CHECK(external < r->program.external_count && r->table[external]);
    return r->device->ops->zero(r, external, offset, bytes);
}

err device_zero_scratch(struct loaded *r)
{
    return r->device->ops->zero_scratch(r);
}

err device_health(struct device *d, struct text *why)
{
    return d->ops->health ? d->ops->health(d, why) : OK;
}

err device_revive(struct loaded *r)
{
    return r->device->ops->revive ? r->device->ops->revive(r) : OK;
}
