/*
 * fuzz_chat.c: any bytes as a chat template, and as a message. The first byte says how many bytes
 * are the template. Whatever comes out: it ends, stays in its memory, and every byte that only the
 * message has is in a USER part.
 */
#include "ml/jinja.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

#define MARK '\x07' /* put into the message; a template that holds it is not judged */

static bool has_mark(struct str text) { return str_find_char(text, MARK) < text.len; }

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    static _Alignas(64) u8 memory[MIB];
    struct arena arena = arena_on("fuzz", memory, sizeof(memory));
    char words[200], content[64];
    struct text reason = TEXT_ON(words), message = TEXT_ON(content);
    struct ml_part *part = NULL;
    u32 count = 0;

    if (bytes < 1)
        return 0;
    usize user = data[0] % 32 < bytes - 1 ? data[0] % 32 : bytes - 1;
    text_char(&message, MARK);
    text_put(&message, (struct str){(const char *)data + 1, user});
    struct ml_message messages[] = {{STR("user"), text_str(&message)},
                                    {STR("assistant"), STR("\x07")}};
    struct jinja_env env = {
        .source = {(const char *)data + 1 + user, bytes - 1 - user},
        .message = messages,
        .message_count = data[0] >> 6,
        .add_generation_prompt = data[0] & 32,
        .bos = STR("<s>"),
        .eos = STR("</s>"),
    };
    env.message_count = min_u32(env.message_count, ARRAY_LEN(messages));
    err why = jinja_render(&env, &arena, &part, &count, &reason);
    CHECK(why == OK || why == E_FORMAT || why == E_LIMIT);
    CHECK((why == OK) == (reason.len == 0));
    for (u32 i = 0; why == OK && i < count; i++) {
        CHECK(part[i].text.len > 0 && (i == 0 || part[i].kind != part[i - 1].kind));
        CHECK(has_mark(env.source) || part[i].kind == ML_PART_USER || !has_mark(part[i].text) ||
              str_find(env.source, STR("\\x07")) < env.source.len ||
              str_find(env.source, STR("\\u0007")) < env.source.len);
    }
    return 0;
}
