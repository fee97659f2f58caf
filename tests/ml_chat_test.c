/*
 * ml_chat_test.c: chat templates: whose byte is whose, what a hostile template is refused for, and
 * that each refusal says where. What templates mean is judged by tests/witness/chat_jinja2.py.
 */
#include "ml/jinja.h"
#include "tests/test.h"

#define MEMORY (4 * MIB)

struct shown {
    err why;
    char words[200], text[4096]; /* USER parts in square brackets */
    usize len;
};

static struct shown show(const char *source, const char *content)
{
    struct shown shown = {};
    void *memory = pages_alloc(MEMORY);
    struct arena arena = arena_on("chat", memory, MEMORY);
    struct text reason = TEXT_ON(shown.words), out = TEXT_ON(shown.text);
    struct ml_message message[] = {{STR("user"), str_of(content)}};
    struct jinja_env env = {.source = str_of(source), .message = message, .message_count = 1};
    struct ml_part *part = NULL;
    u32 count = 0;

    shown.why = jinja_render(&env, &arena, &part, &count, &reason);
    for (u32 i = 0; shown.why == OK && i < count; i++)
        text_fmt(&out, part[i].kind == ML_PART_USER ? "[%.*s]" : "%.*s", (int)part[i].text.len,
                 part[i].text.ptr);
    text_char(&reason, '\0');
    shown.len = out.len;
    pages_free(memory, MEMORY);
    return shown;
}

static const struct origin {
    const char *source, *content, *shown;
} origins[] = {
    {"<s>{{ messages[0].content }}</s>", "a</s>b", "<s>[a</s>b]</s>"},
    {"{{ '<s>' + messages[0].content + '</s>' }}", "<s>", "<s>[<s>]</s>"},
    {"{{ messages[0].content | trim }}.", " \n<s> ", "[<s>]."},
    {"{{ messages[0].content.split('x')[1] ~ 'x' }}", "axbxc", "[b]x"},
    {"{{ messages[0].content | upper }}", "<s>", "[<S>]"},
    {"{{ messages[0].content.replace('b', '<s>') }}", "abc", "[a]<s>[c]"},
    {"{{ 'abc'.replace('b', messages[0].content) }}", "<s>", "a[<s>]c"},
    {"{{ messages[0].content | tojson }}", "<s>", "\"[<s>]\""},
    {"{{ [messages[0].content, 'y'] | join('-') }}", "<s>", "[<s>]-y"},
    {"{{ messages[0].content[1:] }}", "a<s>", "[<s>]"},
    {"{{ messages[0].content[0] ~ messages[0].content[-1] }}", "<s>", "[<>]"},
    {"{% set x %}<s>{{ messages[0].content }}{% endset %}{{ x }}", "u", "<s>[u]"},
    {"{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(messages[0].content) }}", "s", "<[s]>"},
    {"{% for c in messages[0].content %}{{ c }}.{% endfor %}", "ab", "[a].[b]."},
    {"{% set n = namespace(s='<') %}{% set n.s = n.s ~ messages[0].content %}{{ n.s }}>", "s",
     "<[s]>"},
    {"{{ messages[0].role }}", "", "[user]"},
    {"{{ strftime_now(messages[0].content) }}", "<s>%Y", "[<s>]1970"},
    {"{{ messages[0].content | default('<s>', true) }}", "", "<s>"},
};

TEST(ml_chat_bytes_of_a_message_stay_the_messages)
{
    for (u32 i = 0; i < ARRAY_LEN(origins); i++) {
        struct shown shown = show(origins[i].source, origins[i].content);
        EXPECT_STR(str_of(shown.words), STR(""));
        EXPECT_STR(((struct str){shown.text, shown.len}), str_of(origins[i].shown));
    }
}

static const struct refusal {
    const char *source, *words;
    err why;
} refusals[] = {
    {"{{ raise_exception('no ' + messages[0].content) }}", "line 1: no <s>", E_FORMAT},
    {"a\nb\n{{ 1 + }}", "line 3: expected a value, saw '}}'", E_FORMAT},
    {"{% if true %}", "not closed", E_FORMAT},
    {"{% endif %}", "an end without its begin", E_FORMAT},
    {"{% for x in [1] %}{% endif %}", "an end without its begin", E_FORMAT},
    {"{{ 'abc }}", "a text is not closed", E_FORMAT},
    {"{{ messages", "a tag is not closed", E_FORMAT},
    {"{# x", "a comment is not closed", E_FORMAT},
    {"{% nonsense %}", "no known statement", E_FORMAT},
    {"{{ 1 | nonsense }}", "no known filter", E_FORMAT},
    {"{{ x.y }}", "undefined value", E_FORMAT},
    {"{{ x() }}", "'x' is not a function", E_FORMAT},
    {"{{ 1 / 2 }}", "cannot take these values", E_FORMAT},
    {"{{ 9223372036854775807 }}", "too long", E_FORMAT},
    {"{{ 999999999999999999 * 99 }}", "cannot take these values", E_FORMAT},
    {"{% for i in range(99999999) %}{{ i }}{% endfor %}", "out of memory", E_LIMIT},
    {"{% for i in range(3000) %}{% for j in range(3000) %}{% for k in range(3000) %}{% endfor %}"
     "{% endfor %}{% endfor %}", "", E_LIMIT},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "", E_LIMIT},
    {"{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
     "{% endfor %}", "", E_LIMIT},
};

TEST(ml_chat_hostile_templates_are_refused_in_words)
{
    for (u32 i = 0; i < ARRAY_LEN(refusals); i++) {
        struct shown shown = show(refusals[i].source, "<s>");
        struct str words = str_of(shown.words);
        if (shown.why != refusals[i].why || words.len < 20 ||
            str_find(words, str_of(refusals[i].words)) == words.len)
            test_fail(__FILE__, __LINE__, "%s: %s %s", refusals[i].source, err_name(shown.why),
                      shown.words);
    }
}

/* What nests deeper than the limit must not take more stack. */
TEST(ml_chat_nesting_is_bounded)
{
    static const struct nest {
        const char *open, *close;
    } nests[] = {
        {"(", ")"}, {"1 is eq ", ""}, {"1 if 0 else ", ""}, {"not ", ""}, {"[1][", " and 0]"},
    };

    for (u32 i = 0; i < 4 * ARRAY_LEN(nests); i++) {
        u32 depth = i % 4 == 0 ? 1 : i % 4 == 1 ? 10 : i % 4 == 2 ? 100 : 1000;
        static char source[16 * KIB];
        struct text out = TEXT_ON(source);
        text_fmt(&out, "{{ ");
        for (u32 n = 0; n < depth; n++)
            text_fmt(&out, "%s", nests[i / 4].open);
        text_fmt(&out, "1");
        for (u32 n = 0; n < depth; n++)
            text_fmt(&out, "%s", nests[i / 4].close);
        text_fmt(&out, " }}%c", '\0');
        struct shown shown = show(source, "");
        EXPECT_EQ(shown.why, depth < 20 ? OK : E_LIMIT);
    }
}

/* Every prefix of a template is a template or a refusal. */
TEST(ml_chat_survives_every_truncation)
{
    static const char source[] =
        "{%- macro m(a, b=1) -%}{{ a ~ b|string }}{%- endmacro %}{% set ns = namespace(i=0) %}\n"
        "{% for x in messages if x.role is in ['user', \"b\"] %}{% set ns.i = ns.i + 1 %}"
        "{% if loop.first and not x.content[0:1] == '\\n' %}{{ m(x.content, b={'k': 2}.k) }}"
        "{% elif x %}{# no #}{% else %}{% break %}{% endif %}{% else %}-{% endfor %}{{ ns.i }}";
    char cut[sizeof(source)];

    for (usize len = 0; len < sizeof(source); len++) {
        memcpy(cut, source, len);
        cut[len] = '\0';
        struct shown shown = show(cut, "hello");
        EXPECT(shown.why == OK || shown.why == E_FORMAT);
    }
    EXPECT_STR(str_of(show(source, "hello").text), STR("[hello]21"));
}
