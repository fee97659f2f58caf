/*
 * parse.c: the text form of graphs (docs/GRAPH.md): one statement a line, names for values, numbers
 * and symbols for extents. Reads it into a graph with the builders of graph.c; names are slices of
 * the source, which must outlive the graph. Must not know files or formats: a weight's format is
 * kept as a name. Bounded, without recursion: the text comes from outside.
 */
#include "tests/oracle/parse.h"
#include "ml/mathf.h"

static void parse_line(struct parse *parse, struct str line);
static void parse_declaration(struct parse *parse, struct str kind, struct str rest);
static void parse_output(struct parse *parse, struct str rest);
static u32 parse_call(struct parse *parse, struct str rest);
static struct name *name_place(struct parse *parse, struct str text);
static void name_add(struct parse *parse, struct str text, u32 node);

/* The first mistake sticks in the graph, like the builders' own. */
u32 parse_fail(struct graph *graph, const char *format, ...)
{
    struct text why = TEXT_ON(graph->why);
    va_list args;

    if (graph->status != OK)
        return 0;
    graph->status = E_FORMAT;
    va_start(args, format);
    text_vfmt(&why, format, args);
    va_end(args);
    graph->why[min_u64(why.len, sizeof graph->why - 1)] = 0;
    return 0;
}

err graph_parse(struct graph *graph, struct str source, struct text *why)
{
    struct parse parse = {.graph = graph, .name_mask = graph->hash_mask};
    u32 line = 0;

    parse.name = arena_new(graph->arena, struct name, parse.name_mask + 1);
    if (!parse.name)
        return E_NOMEM;
    while (source.len && graph->status == OK) {
        struct str comment;
        parse_line(&parse, str_trim(str_cut(str_cut(source, '\n', &source), '#', &comment)));
        line++;
    }
    if (graph->status == OK && graph->output_count == 0)
        parse_fail(graph, "the graph has no output");
    if (graph->status != OK || graph_check(graph) != OK)
        text_fmt(why, "line %u: %s", line, graph->why);
    return graph->status;
}

/* ---- words ---- */

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || c == '.';
}

static bool is_name(struct str text)
{
    for (usize i = 0; i < text.len; i++)
        if (!is_name_char(text.ptr[i]))
            return false;
    return text.len && (text.ptr[0] > '9' || text.ptr[0] == '_');
}

/* Up to a blank or a comma that is not inside brackets. */
static struct str word_next(struct str *rest)
{
    usize at = 0;
    bool inside = false;

    while (rest->len && (rest->ptr[0] == ' ' || rest->ptr[0] == '\t' || rest->ptr[0] == ','))
        *rest = str_slice(*rest, 1, rest->len);
    for (; at < rest->len; at++) {
        char c = rest->ptr[at];
        inside = c == '[' || (inside && c != ']');
        if (!inside && (c == ' ' || c == '\t' || c == ','))
            break;
    }
    struct str word = str_slice(*rest, 0, at);
    *rest = str_slice(*rest, at, rest->len);
    return word;
}

/* The next item of "[a, b]" or of a bare "a"; false at the end. */
bool parse_item(struct str *list, struct str *item)
{
    *list = str_trim(*list);
    if (str_starts(*list, STR("[")))
        *list = str_slice(*list, 1, list->len - (list->ptr[list->len - 1] == ']'));
    if (str_trim(*list).len == 0)
        return false;
    *item = str_trim(str_cut(*list, ',', list));
    return true;
}

bool parse_number(struct str text, f64 *value)
{
    f64 sign = str_starts(text, STR("-")) ? -1 : 1;
    struct str size = str_slice(text, sign < 0 ? 1 : 0, text.len);

    *value = str_eq(size, STR("inf")) ? sign * MATH_INF : MATH_NAN;
    return str_eq(size, STR("inf")) || str_eq(size, STR("nan")) || str_to_f64(text, value) == OK;
}

bool parse_whole(struct str text, i32 *value)
{
    f64 number;

    if (!parse_number(text, &number) || !(number >= INT32_MIN && number <= INT32_MAX) ||
        number != math_floor(number))
        return false;
    *value = (i32)number;
    return true;
}

static struct name *name_place(struct parse *parse, struct str text)
{
    u32 hash = 0x811c9dc5;

    for (usize i = 0; i < text.len; i++)
        hash = (hash ^ (u8)text.ptr[i]) * 0x01000193u;
    struct name *place = &parse->name[hash & parse->name_mask];
    while (place->text.len && !str_eq(place->text, text))
        place = &parse->name[++hash & parse->name_mask];
    return place;
}

static void name_add(struct parse *parse, struct str text, u32 node)
{
    struct name *place = name_place(parse, text);
    f64 number;

    if (place->text.len || !is_name(text) || parse_number(text, &number))
        parse_fail(parse->graph, "\"%.*s\" is taken or no name", (int)text.len, text.ptr);
    else if (2 * ++parse->name_count > parse->name_mask)
        parse_fail(parse->graph, "too many names");
    else
        *place = (struct name){text, node};
}

u32 parse_name(struct parse *parse, struct str text)
{
    struct name *place = name_place(parse, text);

    if (text.len && place->text.len)
        return place->node;
    return parse_fail(parse->graph, "there is no value \"%.*s\" yet", (int)text.len, text.ptr);
}

/* Extents: numbers or symbols; -1 is kept for reshape. Returns the rank. */
u32 parse_dims(struct parse *parse, struct str list, dim *out)
{
    struct graph *graph = parse->graph;
    struct str item;
    u32 rank = 0;

    for (; parse_item(&list, &item); rank++) {
        i32 extent = 0;
        u32 sym = 0;
        while (sym < graph->sym_count && !str_eq(graph->sym[sym].name, item))
            sym++;
        if (rank == RANK_MAX)
            return parse_fail(graph, "more than %u axes", RANK_MAX);
        if (sym == graph->sym_count && (!parse_whole(item, &extent) || extent < 1))
            return parse_fail(graph, "\"%.*s\" is no extent", (int)item.len, item.ptr);
        out[rank] = sym < graph->sym_count ? dim_sym(sym) : dim_of((u32)extent);
    }
    return rank;
}

/* ---- statements ---- */

static void parse_line(struct parse *parse, struct str line)
{
    struct str rest = line;
    usize len = 0;

    while (len < line.len && is_name_char(line.ptr[len]))
        len++;
    struct str head = str_slice(line, 0, len);
    rest = str_trim(str_slice(line, len, line.len));
    if (line.len == 0)
        return;
    if (str_starts(rest, STR("="))) {
        u32 node = parse_call(parse, str_slice(rest, 1, rest.len));
        if (parse->graph->status == OK)
            name_add(parse, head, node);
    } else if (str_eq(head, STR("output"))) {
        parse_output(parse, rest);
    } else {
        parse_declaration(parse, head, rest);
    }
}

/* sym NAME BOUND | input, const, state NAME TYPE [SHAPE] | weight NAME FORMAT [ROWS, COLUMNS] */
static void parse_declaration(struct parse *parse, struct str kind, struct str rest)
{
    struct graph *graph = parse->graph;
    struct str name = word_next(&rest), type = word_next(&rest), list = word_next(&rest);
    struct external source = {.name = name, .kind = OP_INPUT, .format = type};
    i32 bound;

    rest = str_trim(rest);
    if (rest.len)
        parse_fail(graph, "unexpected \"%.*s\"", (int)rest.len, rest.ptr);
    if (str_eq(kind, STR("sym"))) {
        if (!is_name(name) || !parse_whole(type, &bound) || bound < 1)
            parse_fail(graph, "sym wants a name and its largest value");
        else
            graph_sym(graph, name, (u32)bound);
        return;
    }
    while (source.kind <= OP_WEIGHT && !str_eq_nocase(kind, str_of(op_row[source.kind].name)))
        source.kind++;
    while (source.storage < DT_COUNT && !str_eq(type, str_of(dtype_name(source.storage))))
        source.storage++;
    if (source.kind == OP_WEIGHT)
        source.storage = DT_F32; /* its format says more */
    if (source.kind > OP_WEIGHT)
        parse_fail(graph, "\"%.*s\" is no statement", (int)kind.len, kind.ptr);
    else if (source.storage == DT_COUNT || !str_starts(list, STR("[")))
        parse_fail(graph, "a source wants a name, a type and a shape in brackets");
    source.rank = (u8)parse_dims(parse, list, source.shape);
    u32 node = graph->status == OK ? graph_source(graph, &source) : 0;
    if (graph->status == OK)
        name_add(parse, name, node);
}

static void parse_output(struct parse *parse, struct str rest)
{
    for (struct str word = word_next(&rest); word.len; word = word_next(&rest)) {
        struct str value, name = str_cut(word, '=', &value);
        u32 node = parse_name(parse, value.len ? value : name);
        if (parse->graph->status == OK && !is_name(name))
            parse_fail(parse->graph, "\"%.*s\" is no name", (int)name.len, name.ptr);
        if (parse->graph->status == OK)
            graph_output(parse->graph, name, node);
    }
}

/* ---- operations ---- */

static enum dtype operands_dtype(struct call *call);
static u32 operand_read(struct call *call, struct str word, enum dtype dtype);

/* OP OPERAND... KEY=VALUE... in any order. */
static u32 parse_call(struct parse *parse, struct str rest)
{
    struct call call = {.parse = parse, .graph = parse->graph};

    call.op = word_next(&rest);
    for (struct str word = word_next(&rest); word.len; word = word_next(&rest)) {
        struct str value, key = str_cut(word, '=', &value);
        if (key.len == word.len && call.count < OPERANDS_MAX)
            call.word[call.count++] = word;
        else if (key.len < word.len && call.attr_count < ATTRS_MAX)
            call.attr[call.attr_count++] = (struct attr){key, value, false};
        else
            return parse_fail(parse->graph, "too many operands or attributes");
    }
    enum dtype dtype = operands_dtype(&call);
    for (u32 i = 0; i < call.count; i++)
        call.src[i] = operand_read(&call, call.word[i], dtype);
    u32 node = parse->graph->status == OK ? call_build(&call) : 0;
    for (u32 i = 0; i < call.attr_count; i++)
        if (!call.attr[i].used)
            return parse_fail(parse->graph, "%.*s does not know \"%.*s=\"", (int)call.op.len,
                              call.op.ptr, (int)call.attr[i].key.len, call.attr[i].key.ptr);
    return node;
}

/* Whole literals take the type of the operands beside them; where's condition has no say. */
static enum dtype operands_dtype(struct call *call)
{
    f64 number;

    for (u32 i = str_eq(call->op, STR("where")) ? 1 : 0; i < call->count; i++)
        if (!parse_number(call->word[i], &number))
            return call->graph->node[parse_name(call->parse, call->word[i])].dtype;
    return DT_I32;
}

static u32 operand_read(struct call *call, struct str word, enum dtype dtype)
{
    f64 number;
    i32 whole;

    if (!parse_number(word, &number))
        return parse_name(call->parse, word);
    if (dtype == DT_I32 && str_find_char(word, '.') == word.len && parse_whole(word, &whole))
        return graph_scalar_i32(call->graph, whole);
    return graph_scalar_f32(call->graph, (f32)number);
}
