/*
 * lir_shadow.c: who read and wrote each byte: of the waves of a group since the last barrier, and
 * of the groups since the last barrier between launches. Finds what only an order of execution
 * hides.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/oracle/lir_eval.h"

#define LINE_BYTES 64u
#define MANY       UINT32_MAX

/* Waves as bits, groups by number + 1, MANY: several. */
struct line {
    u64 base;
    u32 interval, phase;
    u16 reads[LINE_BYTES], writes[LINE_BYTES];
    u32 reader[LINE_BYTES], writer[LINE_BYTES];
    bool fixed[LINE_BYTES];
};

struct lir_shadow {
    struct line *line;
    usize count, mask;
    u32 interval, phase, group;
};

struct lir_shadow *lir_shadow_open(void)
{
    struct lir_shadow *shadow = calloc(1, sizeof *shadow);

    CHECK(shadow != NULL);
    shadow->mask = 1023;
    shadow->line = calloc(shadow->mask + 1, sizeof *shadow->line);
    CHECK(shadow->line != NULL);
    shadow->interval = shadow->phase = 1;
    return shadow;
}

void lir_shadow_close(struct lir_shadow *shadow)
{
    free(shadow->line);
    free(shadow);
}

void lir_shadow_phase(struct lir_shadow *shadow)
{
    shadow->phase++;
    shadow->group = 0;
}

void lir_shadow_group(struct lir_shadow *shadow)
{
    shadow->group++;
    shadow->interval++;
}

void lir_shadow_barrier(struct lir_shadow *shadow)
{
    shadow->interval++;
}

/* Open addressing; an unused line has base 0. */
static struct line *place(struct line *line, usize mask, u64 base)
{
    usize at = (usize)(base / LINE_BYTES * 0x9e3779b97f4a7c15ull >> 20) & mask;

    while (line[at].base && line[at].base != base)
        at = (at + 1) & mask;
    return &line[at];
}

static void grow(struct lir_shadow *shadow)
{
    usize mask = shadow->mask * 2 + 1;
    struct line *wider = calloc(mask + 1, sizeof *wider);

    CHECK(wider != NULL);
    for (usize i = 0; i <= shadow->mask; i++)
        if (shadow->line[i].base)
            *place(wider, mask, shadow->line[i].base) = shadow->line[i];
    free(shadow->line);
    shadow->line = wider;
    shadow->mask = mask;
}

static struct line *line_of(struct lir_shadow *shadow, u64 base)
{
    struct line *line = place(shadow->line, shadow->mask, base);

    if (!line->base) {
        if (++shadow->count * 2 > shadow->mask) {
            grow(shadow);
            line = place(shadow->line, shadow->mask, base);
        }
        line->base = base;
    }
    if (line->phase != shadow->phase) {
        memset(line, 0, sizeof *line);
        line->base = base;
        line->phase = shadow->phase;
    }
    if (line->interval != shadow->interval) {
        memset(line->reads, 0, sizeof line->reads);
        memset(line->writes, 0, sizeof line->writes);
        line->interval = shadow->interval;
    }
    return line;
}

static bool other_group(u32 seen, u32 group)
{
    return seen != 0 && seen != group;
}

static const char *touch_byte(struct lir_shadow *shadow, const struct lir_touch *t, u64 at)
{
    struct line *line = line_of(shadow, at - at % LINE_BYTES);
    u32 i = at % LINE_BYTES, group = t->shared ? shadow->group : 0;
    u16 others = (u16) ~(1u << t->wave);

    if (line->writes[i] & others)
        return t->write ? "two waves write the same byte without a barrier"
                        : "a wave reads what another wrote without a barrier";
    if (t->write && line->reads[i] & others)
        return "a wave writes what another read without a barrier";
    if (t->shared && other_group(line->writer[i], group))
        return "a group touches what another group of the same phase wrote";
    if (t->shared && t->write && other_group(line->reader[i], group))
        return "a group writes what another group of the same phase read";
    if (t->fixed && line->writer[i])
        return "a load says fixed of what this kernel wrote";
    if (t->write && line->fixed[i])
        return "a kernel writes what a load called fixed";
    line->fixed[i] |= t->fixed;
    *(t->write ? &line->writes[i] : &line->reads[i]) |= (u16)(1u << t->wave);
    u32 *who = t->write ? &line->writer[i] : &line->reader[i];
    *who = other_group(*who, group) ? MANY : group;
    return NULL;
}

const char *lir_shadow_touch(struct lir_shadow *shadow, const struct lir_touch *touch)
{
    for (u32 i = 0; i < touch->bytes; i++) {
        const char *fault = touch_byte(shadow, touch, touch->at + i);
        if (fault)
            return fault;
    }
    return NULL;
}
