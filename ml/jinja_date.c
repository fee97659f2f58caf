/*
 * jinja_date.c: strftime_now, which puts today's date into a system prompt. Owns the calendar; the
 * time is given. Follows C's strftime in the "C" locale for %Y %y %m %d %H %M %S %B %b %A %a %%.
 */
#include "ml/jinja_priv.h"

struct date {
    i64 year;
    u32 month, day, weekday, second; /* month and day from 1, weekday 0 is Sunday */
};

/* Years that begin in March, in eras of 400: the leap day is then the last day of its year. */
static struct date date_of(i64 unix_s)
{
    i64 days = unix_s / 86400 - (unix_s % 86400 < 0);
    i64 since = days + 719468, era = since / 146097 - (since % 146097 < 0);
    u32 day = (u32)(since - era * 146097);
    u32 year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    u32 rest = day - (365 * year + year / 4 - year / 100), month = (5 * rest + 2) / 153;

    return (struct date){
        .year = era * 400 + year + (month >= 10),
        .month = month < 10 ? month + 3 : month - 9,
        .day = rest - (153 * month + 2) / 5 + 1,
        .weekday = (u32)(((days + 4) % 7 + 7) % 7),
        .second = (u32)(unix_s - days * 86400),
    };
}

static void date_field(struct text *out, const struct date *date, char code)
{
    static const char months[] = "January  February March    April    May      June     "
                                 "July     August   SeptemberOctober  November December ";
    static const char days[] = "Sunday   Monday   Tuesday  WednesdayThursday Friday   Saturday ";
    static const char codes[] = "mdHMSyBbAaY";
    const i64 value[] = {date->month, date->day, date->second / 3600, date->second / 60 % 60,
                         date->second % 60, date->year % 100};
    usize which = str_find_char(str_of(codes), code);
    const char *name = which < 8 ? months + 9 * (date->month - 1) : days + 9 * date->weekday;

    if (which < ARRAY_LEN(value))
        text_fmt(out, "%02lld", (long long)value[which]);
    else if (code == 'Y')
        text_fmt(out, "%lld", (long long)date->year);
    else if (which < sizeof(codes) - 1)
        text_put(out, str_trim((struct str){name, which % 2 ? 3 : 9}));
    else
        text_char(out, code);
}

struct value jinja_strftime(struct vm *vm, const struct args *args)
{
    struct date date = date_of(vm->env->now_unix_s);
    char text[64], made[160];
    struct str format = jinja_bytes(jinja_arg(args, 0, STR("")), text, sizeof(text));
    struct text out = TEXT_ON(made);
    u32 mark = vm->out_len;

    for (usize i = 0; i < format.len; i++) {
        if (format.ptr[i] == '%' && i + 1 < format.len)
            date_field(&out, &date, format.ptr[++i]);
        else
            text_char(&out, format.ptr[i]);
    }
    jinja_emit_literal(vm, text_str(&out));
    return jinja_take(vm, mark);
}
