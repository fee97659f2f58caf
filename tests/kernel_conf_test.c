/*
 * kernel_conf_test.c: nohost.conf as users mistype it.
 */
#include "tests/test.h"

#include "kernel/kernel.h"

static struct config read(struct str text)
{
    struct config config;
    conf_read(&config, text);
    return config;
}

TEST(kernel_conf_defaults)
{
    struct config c = read(STR(""));

    EXPECT_STR(c.hostname, STR("nohost"));
    EXPECT(c.port == 80 && c.watchdog_s == 60);
    EXPECT(c.ip.len == 0 && c.api_key_count == 0 && c.mistakes == 0);
}

TEST(kernel_conf_reads_every_form_of_a_line)
{
    struct config c =
        read(STR("\xef\xbb\xbf# a comment\r\n\r\n  HostName=box1 # name\r\nport = 8080\n"
                 "api_key = first-key-1\napi_key=second-key\nip = DHCP\nmodel=a/b.gguf\n"
                 "kernel = other.elf\nfile = x.bin\ndns=10.0.2.3"));

    EXPECT_STR(c.hostname, STR("box1"));
    EXPECT_STR(c.api_key[0], STR("first-key-1"));
    EXPECT_STR(c.api_key[1], STR("second-key"));
    EXPECT_STR(c.model, STR("a/b.gguf"));
    EXPECT_STR(c.dns, STR("10.0.2.3"));
    EXPECT(c.port == 8080 && c.api_key_count == 2 && c.ip.len == 0);
    EXPECT_EQ(c.mistakes, 0);
}

/* A wrong line changes nothing, is counted, and the lines after it still count. */
TEST(kernel_conf_skips_wrong_lines)
{
    struct config c = read(STR("port = 0\nport = 65536\nport = -1\nport = 8a\nport\nnonsense = 1\n"
                               "api_key = short\nhostname =\nwatchdog_s = 601\nip = a b\n"
                               "= x\nslots = 99999999999999999999999\nthreads = 3\n"));

    EXPECT_EQ(c.mistakes, 12);
    EXPECT(c.port == 80 && c.slots == 0 && c.threads == 3 && c.api_key_count == 0 && c.ip.len == 0);
    EXPECT_STR(c.hostname, STR("nohost"));
}

TEST(kernel_conf_api_keys_are_bounded)
{
    char bytes[1000];
    struct text file = TEXT_ON(bytes);

    for (u32 i = 0; i < CONF_KEYS_MAX + 3; i++)
        text_fmt(&file, "api_key = key-number-%u\n", i);
    struct config c = read(text_str(&file));
    EXPECT_EQ(c.api_key_count, CONF_KEYS_MAX);
    EXPECT_EQ(c.mistakes, 3);
}
