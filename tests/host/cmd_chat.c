/*
 * cmd_chat.c: nohost chat-template: renders messages by a model's template, or by one from a file,
 * and shows for every piece whether the template or a message wrote it.
 */
#include <stdlib.h>
#include <string.h>

#include "ml/priv.h"
#include "net/json.h"
#include "tests/host/tool.h"

int cmd_chat_template(int argc, char **argv);

static const char help[] =
    "nohost chat-template --model M --messages FILE.json [--template FILE]\n"
    "                     [--no-generation-prompt] [--now UNIX]\n"
    "nohost chat-template --model M --show-template -> {\"template\": T}\n"
    "  M         a GGUF file: its template, bos and eos\n"
    "  FILE      a template to use instead of the model's\n"
    "  messages  [{\"role\": R, \"content\": C}, ...]; - reads stdin\n"
    "  now       seconds since 1970 for strftime_now; the clock's when absent\n"
    "-> {\"text\": T, \"parts\": [{\"kind\": \"template\"|\"user\", \"text\": T}, ...]}\n"
    "   or {\"error\": NAME, \"reason\": WORDS} and exit code 1\n";

static const char *const options[] = {
    "--model=", "--template=", "--messages=", "--no-generation-prompt", "--now=",
    "--show-template", NULL,
};

static struct str member_text(const struct json *message, const char *name)
{
    const struct json *value = NULL;

    if (message->kind == JSON_OBJECT)
        value = json_member(message, str_of(name));
    if (!value || value->kind != JSON_STRING)
        tool_fail("every message wants a text '%s'", name);
    return value->text;
}

static u32 read_messages(const char *path, struct ml_message **message)
{
    usize len;
    char *text = tool_file(path, &len);
    u32 nodes = (u32)min_u64(len + 1, 1u << 22);
    struct json_doc doc = {.node = calloc(nodes, sizeof(struct json)), .node_max = nodes};

    if (!doc.node || json_read(&doc, text, len) != OK || doc.node[0].kind != JSON_ARRAY)
        tool_fail("%s: not a JSON array of messages (%s)", path, doc.why ? doc.why : "");
    *message = calloc(doc.node[0].count + 1, sizeof(**message));
    const struct json *node = json_first(doc.node);
    for (u32 i = 0; i < doc.node[0].count; i++, node = json_next(node))
        (*message)[i] = (struct ml_message){.role = member_text(node, "role"),
                                            .content = member_text(node, "content")};
    return doc.node[0].count;
}

static struct jinja_env open_env(int argc, char **argv, struct arena *arena)
{
    struct store part[ML_PARTS_MAX];
    char words[GGUF_REASON_MAX];
    struct text reason = TEXT_ON(words);
    struct gguf gguf;
    struct tokenizer *tok;
    struct jinja_env chat;
    struct ml_message *message;
    u32 parts = tool_model(tool_required(argc, argv, "--model"), part);

    if (gguf_open(&gguf, part, parts, arena, &reason) != OK ||
        tokenizer_open(&tok, &gguf, arena, &reason) != OK ||
        chat_open(&chat, &gguf, tok, arena) != OK)
        tool_fail("%.*s", (int)reason.len, reason.ptr);
    if (tool_option(argc, argv, "--template")) {
        usize len;
        chat.source.ptr = tool_file(tool_option(argc, argv, "--template"), &len);
        chat.source.len = len;
    }
    if (tool_flag(argc, argv, "--show-template"))
        return chat;
    chat.message_count = read_messages(tool_required(argc, argv, "--messages"), &message);
    chat.message = message;
    chat.add_generation_prompt = !tool_flag(argc, argv, "--no-generation-prompt");
    chat.now_unix_s = (i64)tool_number(argc, argv, "--now", (u64)time_unix_s());
    return chat;
}

static void put_parts(struct text *out, const struct ml_part *part, u32 count)
{
    text_fmt(out, "{\"text\": \"");
    for (u32 i = 0; i < count; i++)
        json_put_chars(out, part[i].text);
    text_fmt(out, "\", \"parts\": [");
    for (u32 i = 0; i < count; i++) {
        text_fmt(out, "%s{\"kind\": \"%s\", \"text\": ", i ? ", " : "",
                 part[i].kind == ML_PART_USER ? "user" : "template");
        json_put_str(out, part[i].text);
        text_char(out, '}');
    }
    text_fmt(out, "]}\n");
}

int cmd_chat_template(int argc, char **argv)
{
    static char memory[64 * MIB];
    struct text out = TEXT_ON(memory), reason;
    char words[300];
    struct ml_part *part;
    u32 count;

    tool_check(argc, argv, options, help);
    struct arena arena = tool_arena(512 * MIB);
    struct jinja_env env = open_env(argc, argv, &arena);
    reason = TEXT_ON(words);
    if (tool_flag(argc, argv, "--show-template")) {
        text_fmt(&out, "{\"template\": ");
        json_put_str(&out, env.source);
        text_fmt(&out, "}\n");
        tool_print(text_str(&out));
        return 0;
    }
    err why = jinja_render(&env, &arena, &part, &count, &reason);
    if (why == OK) {
        put_parts(&out, part, count);
    } else {
        text_fmt(&out, "{\"error\": \"%s\", \"reason\": ", err_name(why));
        json_put_str(&out, text_str(&reason));
        text_fmt(&out, "}\n");
    }
    tool_print(text_str(&out));
    return why != OK;
}
