/*
 * chat.c: messages -> typed parts of a prompt, by the template in the model file. Owns the choice
 * of the template; how one is evaluated is jinja.c's. Follows the GGUF key tokenizer.chat_template
 * and, for files without one, the ChatML format.
 */
#include "ml/priv.h"

static const char chatml[] =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

err chat_open(struct jinja_env *chat, const struct gguf *gguf, const struct tokenizer *tok,
              struct arena *arena)
{
    struct str source = {};

    if (gguf_str(gguf, "tokenizer.chat_template", &source) != OK &&
        tokenizer_find(tok, STR("<|im_start|>")) != TOKEN_NONE &&
        tokenizer_find(tok, STR("<|im_end|>")) != TOKEN_NONE)
        source = str_of(chatml);
    *chat = (struct jinja_env){
        .source = arena_str(arena, source),
        .bos = tokenizer_text(tok, tokenizer_facts(tok)->bos),
        .eos = tokenizer_text(tok, tokenizer_facts(tok)->eos),
    };
    return chat->source.ptr ? OK : E_NOMEM;
}
