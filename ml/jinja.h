/*
 * jinja.h: a bounded evaluator of the Jinja subset that chat templates in model files use. Owns
 * rendering and the provenance of every byte; must not know of tokens, models or HTTP. Follows the
 * Jinja 2 template designer documentation with trim_blocks and lstrip_blocks on, as chat templates
 * expect. There are no fractions in it.
 *
 * A template is untrusted code that came with a model file: steps, nesting, names and memory are
 * bounded, and nothing outside `struct jinja_env` can be reached. Every byte of a string knows
 * whether the template or a message wrote it, through every operation, so that a message can never
 * forge a special token.
 */
#ifndef NOHOST_JINJA_H
#define NOHOST_JINJA_H

#include "ml/ml.h"

struct jinja_env {
    struct str source;
    const struct ml_message *message;
    u32 message_count;
    bool add_generation_prompt;
    struct str bos, eos; /* texts of the special tokens, may be empty */
    i64 now_unix_s;      /* what strftime_now formats, in UTC */
};

#define JINJA_SOURCE_MAX (256 * KIB)
#define JINJA_STEPS_MAX  64000000u /* tokens read and bytes handled; well under a second */
#define JINJA_DEPTH_MAX  48u       /* nested blocks and operands: at most 2 KiB of stack each */

/* Parts of one kind each, in the arena, which needs about 8 bytes for each byte of text. E_FORMAT:
 * the template is malformed or raised an exception; E_LIMIT: it ran too long, too deep or too
 * large. `reason` says it in words. */
err jinja_render(const struct jinja_env *env, struct arena *arena, struct ml_part **part,
                 u32 *part_count, struct text *reason);

#endif
