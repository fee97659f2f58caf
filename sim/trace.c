/*
 * trace.c: every register access of the driver as one line, in the format of the trace that
 * tinygrad's AM driver left (without its last column, the caller), so that two drivers can be
 * compared by diff. Equal lines in a row become one with a count. Accesses through RSMU's index and
 * data stand where that driver's trace has them: a write before its pair, a read after it.
 */
#include "sim/priv.h"

#include <stdio.h>
#include <stdlib.h>

struct trace {
    FILE *file;
    char line[160];
    u32 repeats;
    bool index_held; /* RSMU_INDEX was written with `index`, not yet told */
    u32 index;
};

static void trace_line(struct sim *sim, bool write, u32 dword_address, u32 value);

struct trace *trace_open(const char *path)
{
    struct trace *trace = calloc(1, sizeof *trace);

    if (trace)
        trace->file = fopen(path, "w");
    if (trace && !trace->file) {
        free(trace);
        return NULL;
    }
    return trace;
}

void trace_register(struct sim *sim, bool write, u32 dword_address, u32 value)
{
    struct trace *trace = sim->trace;

    if (!trace)
        return;
    enum reg reg = reg_at(sim, dword_address);
    u32 index_address = reg_address(sim, R_BIF_BX_PF0_RSMU_INDEX);
    if (trace->index_held) {
        trace->index_held = false;
        if (write && reg == R_BIF_BX_PF0_RSMU_DATA)
            trace_line(sim, true, trace->index / 4, value);
        trace_line(sim, true, index_address, trace->index);
    }
    if (write && dword_address == index_address) {
        trace->index_held = true;
        trace->index = value;
        return;
    }
    trace_line(sim, write, dword_address, value);
    if (!write && reg == R_BIF_BX_PF0_RSMU_DATA)
        trace_line(sim, false, trace->index / 4, value);
}

static void trace_flush(struct trace *trace)
{
    if (trace->line[0] && trace->repeats > 1)
        fprintf(trace->file, "%s   x%u\n", trace->line, trace->repeats);
    else if (trace->line[0])
        fprintf(trace->file, "%s\n", trace->line);
    trace->line[0] = 0;
    trace->repeats = 0;
}

/* As tinygrad calls it: "reg" before Linux's name, both names of an alias, both prefixes of MP. */
static void trace_name(const struct sim *sim, u32 dword_address, struct text *out)
{
    u32 found = 0;

    for (u32 i = 0; i < REG_COUNT; i++) {
        if (sim->address[i].at != dword_address)
            continue;
        const char *name = reg_name(sim->address[i].reg);
        bool mp = str_starts(str_of(name), STR("MP"));
        text_fmt(out, "%s%s%s%sreg%s", found ? "|" : "", mp ? "mm" : "", mp ? name : "",
                 mp ? "|" : "", name);
        found++;
    }
    enum reg reg = found ? NO_REG : reg_at(sim, dword_address);
    if (reg == NO_REG) {
        text_fmt(out, found ? "" : "?");
        return;
    }
    /* one of the pairs that follow ENG0's: its number goes where the 0 stands */
    struct str name = str_of(reg_name(reg));
    usize zero = str_find(name, STR("ENG0")) + 3;
    u32 engine = (dword_address - reg_address(sim, reg)) / 2;
    text_fmt(out, "reg%.*s%u%s", (int)zero, name.ptr, engine, name.ptr + zero + 1);
}

static void trace_line(struct sim *sim, bool write, u32 dword_address, u32 value)
{
    struct trace *trace = sim->trace;
    char name[96], line[sizeof trace->line];
    struct text name_text = TEXT_ON(name);

    trace_name(sim, dword_address, &name_text);
    snprintf(line, sizeof line, "%c 0x%07x %-60.*s 0x%x", write ? 'W' : 'R', dword_address,
             (int)name_text.len, name, value);
    if (!str_eq(str_of(line), str_of(trace->line))) {
        trace_flush(trace);
        snprintf(trace->line, sizeof trace->line, "%s", line);
    }
    trace->repeats++;
}

void trace_close(struct trace *trace)
{
    if (!trace)
        return;
    trace_flush(trace);
    fclose(trace->file);
    free(trace);
}
