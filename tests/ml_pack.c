/*
 * ml_pack.c: reads the packs of ml_pack.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ml_pack.h"
#include "tests/test.h"

struct pack pack_open(const char *data_name)
{
    const char *path = test_data(data_name);
    struct pack pack = {};
    FILE *file;
    long len;

    if (path == NULL)
        test_skip("no pack: its witness runs this test");
    file = fopen(path, "rb");
    EXPECT(file != NULL && fseek(file, 0, SEEK_END) == 0);
    len = ftell(file);
    rewind(file);
    pack.len = (usize)len;
    pack.bytes = malloc(pack.len + 1);
    EXPECT(pack.bytes != NULL && fread(pack.bytes, 1, pack.len, file) == pack.len);
    fclose(file);
    return pack;
}

bool pack_next(struct pack *pack, struct pack_file *file)
{
    u32 name_len, len;

    if (pack->at > 0)
        free(file->bytes);
    file->bytes = NULL;
    if (pack->at == pack->len)
        return false;
    file->expect = pack->bytes[pack->at];
    memcpy(&name_len, pack->bytes + pack->at + 1, 4);
    memcpy(&len, pack->bytes + pack->at + 5, 4);
    EXPECT(name_len < sizeof(file->name) && len <= pack->len - pack->at);
    memcpy(file->name, pack->bytes + pack->at + 9, name_len);
    file->name[name_len] = 0;
    file->bytes = malloc(len + 1);
    memcpy(file->bytes, pack->bytes + pack->at + 9 + name_len, len);
    file->len = len;
    pack->at += 9 + name_len + len;
    return true;
}

void pack_close(struct pack *pack)
{
    free(pack->bytes);
}
