/*
 * ledger.c: what the card has done, as JSON: packets, dispatches, instruction classes, bytes, and
 * the last dispatches one by one. Counts come from the wave engine, pm4.c and sdma.c; nothing here
 * is time.
 */
#include "sim/cp.h"

/* The members of struct compute_ledger that add up, and their names. */
#define SUMS(X)                                                                                    \
    X(waves)                                                                                       \
    X(groups)                                                                                      \
    X(barriers)                                                                                    \
    X(salu)                                                                                        \
    X(valu) X(vopd) X(dot) X(wmma) X(trans) X(smem) X(lds) X(vmem_loads) X(vmem_stores) X(atomics) \
        X(branches) X(waits) X(other) X(lanes) X(load_bytes) X(store_bytes) X(sectors_loaded)      \
            X(sectors_stored) X(requests) X(lds_bytes) X(lds_conflicts) X(lines_loaded)

static void put_sums(struct text *out, const struct compute_ledger *done)
{
    text_fmt(out, "\"flight_bytes_max\":%llu,\"wgp_groups\":%llu",
             (unsigned long long)done->flight_bytes_max, (unsigned long long)done->wgp_groups);
#define PUT(name) text_fmt(out, ",\"" #name "\":%llu", (unsigned long long)done->name);
    SUMS(PUT)
#undef PUT
}

void ledger_dispatched(struct sim *sim, const struct compute_dispatch *dispatch,
                       const struct compute_ledger *done)
{
    struct ledger *ledger = &sim->gfx->ledger;
    struct ledger_dispatch *entry = &ledger->last[ledger->dispatches++ % LEDGER_LAST];

    *entry = (struct ledger_dispatch){.code = dispatch->code, .at_ns = sim->now_ns, .done = *done};
    for (u32 i = 0; i < 3; i++) {
        entry->groups[i] = dispatch->groups[i];
        entry->group_size[i] = dispatch->group_size[i];
    }
#define ADD(name) ledger->total.name += done->name;
    SUMS(ADD)
#undef ADD
    ledger->total.flight_bytes_max =
        max_u64(ledger->total.flight_bytes_max, done->flight_bytes_max);
    ledger->total.wgp_groups = max_u64(ledger->total.wgp_groups, done->wgp_groups);
}

static void put_dispatch(struct text *out, const struct ledger_dispatch *entry)
{
    text_fmt(out, "{\"code\":\"0x%llx\",\"at_ns\":%llu,\"grid\":[%u,%u,%u],\"block\":[%u,%u,%u],",
             (unsigned long long)entry->code, (unsigned long long)entry->at_ns, entry->groups[0],
             entry->groups[1], entry->groups[2], entry->group_size[0], entry->group_size[1],
             entry->group_size[2]);
    put_sums(out, &entry->done);
    text_char(out, '}');
}

/* The cut text is no JSON: the answer says how much it wants (about, rounded up). */
usize gfx_ledger(const struct sim *sim, char *json, usize bytes)
{
    const struct ledger *ledger = &sim->gfx->ledger;
    u64 first = ledger->dispatches > LEDGER_LAST ? ledger->dispatches - LEDGER_LAST : 0;
    struct text out = {json, 0, bytes ? bytes - 1 : 0, false};

    text_fmt(&out,
             "{\"packets\":%llu,\"packet_words\":%llu,\"dispatches\":%llu,\"flushes\":%llu,"
             "\"releases\":%llu,"
             "\"acquires\":%llu,\"waits\":%llu,\"indirect_buffers\":%llu,"
             "\"cp_written_bytes\":%llu,",
             (unsigned long long)ledger->packets, (unsigned long long)ledger->words,
             (unsigned long long)ledger->dispatches, (unsigned long long)ledger->events,
             (unsigned long long)ledger->releases, (unsigned long long)ledger->acquires,
             (unsigned long long)ledger->waits, (unsigned long long)ledger->ibs,
             (unsigned long long)ledger->written_bytes);
    ledger_sdma(sim, &out);
    text_fmt(&out, ",\"total\":{");
    put_sums(&out, &ledger->total);
    text_fmt(&out, "},\"last\":[");
    for (u64 i = first; i < ledger->dispatches; i++) {
        if (i > first)
            text_char(&out, ',');
        put_dispatch(&out, &ledger->last[i % LEDGER_LAST]);
    }
    text_fmt(&out, "]}");
    if (bytes)
        json[out.len] = 0;
    return out.truncated ? (LEDGER_LAST + 2) * 1024 : out.len + 1;
}
