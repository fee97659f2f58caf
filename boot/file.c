/*
 * file.c: the files of the boot partition into pages, with progress bars: nohost.conf, the kernel,
 * the model, further ones that nohost.conf names. Must not know what they mean. Follows: UEFI 2.10,
 * 13.4 (simple file system), 13.5 (file).
 */
#include "boot/boot.h"

#include <efilink.h>

#define CHUNK_BYTES (4 * MIB) /* big enough that the firmware's cost per call does not show */
#define BAR_STEPS   32u
#define STATUS_BITS 0x7fffffffu
#define UTF8_MARK   "\xef\xbb\xbf" /* some editors begin a file with it */

static EFI_FILE_HANDLE open_volume(void)
{
    EFI_GUID image_guid = LOADED_IMAGE_PROTOCOL, volume_guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
    EFI_HANDLE_PROTOCOL find = boot.services->HandleProtocol;
    EFI_LOADED_IMAGE *self;
    EFI_FILE_IO_INTERFACE *volume;
    EFI_FILE_HANDLE root;

    if (EFI_ERROR(find(boot.image, &image_guid, (void **)&self)) ||
        EFI_ERROR(find(self->DeviceHandle, &volume_guid, (void **)&volume)) ||
        EFI_ERROR(volume->OpenVolume(volume, &root)))
        stop("the partition that I was started from cannot be opened");
    return root;
}

/* ---- one file ---- */

/* Pages for all of an open file. */
static EFI_STATUS make_room(EFI_FILE_HANDLE handle, struct handoff_file *file)
{
    EFI_STATUS status = handle->SetPosition(handle, UINT64_MAX); /* UEFI: this means the end */

    if (!EFI_ERROR(status))
        status = handle->GetPosition(handle, &file->bytes);
    if (!EFI_ERROR(status))
        status = handle->SetPosition(handle, 0);
    if (!EFI_ERROR(status))
        status = boot.services->AllocatePages(AllocateAnyPages, EfiLoaderData,
                                              file->bytes / PAGE_BYTES + 1, &file->base);
    return status;
}

static EFI_STATUS read_all(EFI_FILE_HANDLE handle, struct handoff_file *file)
{
    EFI_STATUS status = make_room(handle, file);
    u64 done = 0, shown = 0;

    say("%9lu KiB [", div_up(file->bytes, KIB));
    while (!EFI_ERROR(status) && done < file->bytes) {
        UINTN part = min_u64(file->bytes - done, CHUNK_BYTES);
        status = handle->Read(handle, &part, (void *)(usize)(file->base + done));
        done += part;
        if (!EFI_ERROR(status) && part == 0)
            status = EFI_END_OF_FILE;
        for (; shown < done * BAR_STEPS / file->bytes; shown++)
            say("#");
    }
    say("]\r\n");
    return status;
}

/* Names are ASCII here; folders are parted by '/' in nohost.conf and by '\' in UEFI. */
static void load(EFI_FILE_HANDLE root, struct str path, struct handoff_file *file)
{
    CHAR16 wide[HANDOFF_NAME_MAX] = {};
    EFI_FILE_HANDLE handle;

    memset(file, 0, sizeof(*file));
    for (usize i = 0; i < path.len && i < HANDOFF_NAME_MAX - 1; i++) {
        file->name[i] = path.ptr[i];
        wide[i] = path.ptr[i] == '/' ? '\\' : (CHAR16)(u8)path.ptr[i];
    }
    say("  %-40s ", file->name);
    EFI_STATUS status = root->Open(root, &handle, wide, EFI_FILE_MODE_READ, 0);
    if (!EFI_ERROR(status)) {
        status = read_all(handle, file);
        (void)handle->Close(handle);
    }
    if (!EFI_ERROR(status))
        return;
    file->base = file->bytes = 0;
    file->status = status & STATUS_BITS;
    say(" not read: %s (UEFI status %lu)\r\n",
        status == EFI_NOT_FOUND ? "no such file" : "device, file system or memory", file->status);
}

static void hand_on(EFI_FILE_HANDLE root, struct str path)
{
    if (boot.handoff->file_count < HANDOFF_FILES_MAX)
        load(root, path, &boot.handoff->files[boot.handoff->file_count++]);
    else
        say("  %.*s: more than %u files, left out\r\n", (int)path.len, path.ptr, HANDOFF_FILES_MAX);
}

/* ---- folders ---- */

/* The next file of an open folder; false at its end. FAT names end at 255 characters. */
static bool next_file(EFI_FILE_HANDLE folder, struct text *name)
{
    u64 room[(sizeof(EFI_FILE_INFO) + 512) / 8];
    EFI_FILE_INFO *info = (EFI_FILE_INFO *)room;

    for (UINTN bytes = sizeof(room); !EFI_ERROR(folder->Read(folder, &bytes, info)) && bytes > 0;
         bytes = sizeof(room)) {
        name->len = name->truncated = 0;
        for (usize i = 0; info->FileName[i]; i++)
            text_char(name, info->FileName[i] < 0x7f ? (char)info->FileName[i] : '?');
        if (!name->truncated && !(info->Attribute & EFI_FILE_DIRECTORY))
            return true;
    }
    return false;
}

/* First name in the root folder, in alphabetical order, that ends in ".gguf"; empty: none. */
static void find_model(EFI_FILE_HANDLE root, struct text *name)
{
    char narrow[HANDOFF_NAME_MAX];
    struct text seen = TEXT_ON(narrow);

    while (next_file(root, &seen))
        if (str_ends(text_str(&seen), STR(".gguf")) &&
            (name->len == 0 || memcmp(seen.ptr, name->ptr, min_u64(seen.len, name->len)) < 0)) {
            name->len = 0;
            text_put(name, text_str(&seen));
        }
}

/* What is in the folder for devices: drivers look for it by name. */
static void load_firmware(EFI_FILE_HANDLE root)
{
    char narrow[HANDOFF_NAME_MAX], path[HANDOFF_NAME_MAX];
    struct text seen = TEXT_ON(narrow);
    EFI_FILE_HANDLE folder;

    if (EFI_ERROR(root->Open(root, &folder, L"firmware", EFI_FILE_MODE_READ, 0)))
        return;
    while (next_file(folder, &seen)) {
        struct text whole = TEXT_ON(path);
        text_fmt(&whole, "firmware/%.*s", (int)seen.len, seen.ptr);
        if (str_ends(text_str(&seen), STR(".bin")))
            hand_on(root, text_str(&whole));
    }
    (void)folder->Close(folder);
}

/* ---- the model ---- */

/* "x-00001-of-00003.gguf" is one model in three files. */
static void load_model(EFI_FILE_HANDLE root, struct str wanted)
{
    char bytes[HANDOFF_NAME_MAX];
    struct text name = TEXT_ON(bytes);
    u64 count = 1;

    text_put(&name, wanted);
    if (name.len == 0)
        find_model(root, &name);
    if (name.len == 0) {
        say("  no model: nohost.conf names none and there is no *.gguf\r\n");
        return;
    }
    hand_on(root, text_str(&name));
    usize at = str_find(text_str(&name), STR("-00001-of-"));
    if (name.len - at != STR("-00001-of-00003.gguf").len ||
        str_to_u64(str_slice(text_str(&name), at + 10, at + 15), &count) != OK)
        return;
    for (u64 part = 2; part <= count && part <= HANDOFF_FILES_MAX; part++) {
        name.len = at;
        text_fmt(&name, "-%05lu-of-%05lu.gguf", part, count);
        hand_on(root, text_str(&name));
    }
}

/* ---- all: the loader needs three keys of the configuration, the kernel reads the rest ---- */

/* The idx-th value of `key` in the configuration; empty when there is none. */
static struct str config_value(struct str config, struct str key, u32 idx)
{
    while (config.len) {
        struct str value, line = str_cut(config, '\n', &config);
        struct str name = str_trim(str_cut(str_cut(line, '#', &value), '=', &value));
        if (str_eq_nocase(name, key) && idx-- == 0)
            return str_trim(value);
    }
    return (struct str){"", 0};
}

u64 files_load(void)
{
    EFI_FILE_HANDLE root = open_volume();
    struct handoff_file kernel, *first = boot.handoff->files;
    struct str extra;

    hand_on(root, STR("nohost.conf"));
    struct str config = {(const char *)(usize)first->base, first->bytes};
    if (str_starts(config, STR(UTF8_MARK)))
        config = str_slice(config, 3, config.len);
    struct str path = config_value(config, STR("kernel"), 0);
    load(root, path.len ? path : STR("nohost.elf"), &kernel);
    if (kernel.status)
        stop("the kernel file is missing or unreadable (status %lu)", kernel.status);
    u64 entry = image_load((struct str){(const char *)(usize)kernel.base, kernel.bytes});
    (void)boot.services->FreePages(kernel.base, kernel.bytes / PAGE_BYTES + 1);
    load_model(root, config_value(config, STR("model"), 0));
    for (u32 i = 0; (extra = config_value(config, STR("file"), i)).len; i++)
        hand_on(root, extra);
    load_firmware(root);
    return entry;
}
