/*
 * file.c: whole files of the boot partition into pages, with a progress bar. Knows the firmware's
 * file protocol, not what a file means. Follows: UEFI 2.10, 13.4 (simple file system), 13.5 (file).
 */
#include "boot/boot.h"

#include <efilink.h>

#define CHUNK_BYTES (4 * MIB) /* big enough that the firmware's cost per call does not show */
#define BAR_STEPS   32u
#define STATUS_BITS 0x7fffffffu

void file_volume_open(struct loader *loader)
{
    EFI_GUID image_guid = LOADED_IMAGE_PROTOCOL, volume_guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
    EFI_LOADED_IMAGE *self;
    EFI_FILE_IO_INTERFACE *volume;

    if (EFI_ERROR(loader->services->HandleProtocol(loader->image, &image_guid, (void **)&self)) ||
        EFI_ERROR(
            loader->services->HandleProtocol(self->DeviceHandle, &volume_guid, (void **)&volume)) ||
        EFI_ERROR(volume->OpenVolume(volume, &loader->root)))
        stop(loader, "the partition that I was started from cannot be opened");
}

/* File names are ASCII here; folders are parted by '/' in nohost.conf and by '\' in UEFI. */
static void widen(struct str path, CHAR16 out[HANDOFF_NAME_MAX])
{
    usize len = min_u64(path.len, HANDOFF_NAME_MAX - 1);

    for (usize i = 0; i < len; i++)
        out[i] = path.ptr[i] == '/' ? '\\' : (CHAR16)(u8)path.ptr[i];
    out[len] = 0;
}

static EFI_STATUS size_of(EFI_FILE_HANDLE file, u64 *bytes)
{
    EFI_STATUS status = file->SetPosition(file, UINT64_MAX); /* UEFI: this means the end */

    if (!EFI_ERROR(status))
        status = file->GetPosition(file, bytes);
    return EFI_ERROR(status) ? status : file->SetPosition(file, 0);
}

static EFI_STATUS read_all(const struct loader *loader, EFI_FILE_HANDLE file, u8 *to, u64 bytes)
{
    u64 done = 0;
    u32 shown = 0;

    while (done < bytes) {
        UINTN part = min_u64(bytes - done, CHUNK_BYTES);
        EFI_STATUS status = file->Read(file, &part, to + done);
        if (EFI_ERROR(status))
            return status;
        if (part == 0)
            return EFI_END_OF_FILE;
        done += part;
        for (; shown < done * BAR_STEPS / bytes; shown++)
            say(loader, "#");
    }
    return EFI_SUCCESS;
}

static EFI_STATUS load(const struct loader *loader, EFI_FILE_HANDLE handle, EFI_MEMORY_TYPE type,
                       struct handoff_file *file)
{
    u64 bytes = 0;
    EFI_STATUS status = size_of(handle, &bytes);

    if (EFI_ERROR(status))
        return status;
    u8 *pages = loader_pages(loader, type, max_u64(bytes, 1), 0);
    if (!pages)
        return EFI_OUT_OF_RESOURCES;
    say(loader, "%9lu KiB [", div_up(bytes, KIB));
    status = read_all(loader, handle, pages, bytes);
    if (EFI_ERROR(status)) {
        (void)loader->services->FreePages((usize)pages, div_up(max_u64(bytes, 1), PAGE_BYTES));
        return status;
    }
    file->base = (usize)pages;
    file->bytes = bytes;
    return EFI_SUCCESS;
}

void file_load(const struct loader *loader, struct str path, EFI_MEMORY_TYPE type,
               struct handoff_file *file)
{
    CHAR16 wide[HANDOFF_NAME_MAX];
    EFI_FILE_HANDLE handle;
    u64 start = __builtin_ia32_rdtsc();

    memset(file, 0, sizeof(*file));
    memcpy(file->name, path.ptr, min_u64(path.len, HANDOFF_NAME_MAX - 1));
    widen(path, wide);
    say(loader, "  %-40s ", file->name);
    EFI_STATUS status = loader->root->Open(loader->root, &handle, wide, EFI_FILE_MODE_READ, 0);
    if (!EFI_ERROR(status)) {
        status = load(loader, handle, type, file);
        (void)handle->Close(handle);
    }
    file->status = (u32)status & STATUS_BITS;
    u64 took_ms = (__builtin_ia32_rdtsc() - start) / loader->tsc_per_ms;
    if (EFI_ERROR(status))
        say(loader, " not read: %s (UEFI status %u)\r\n",
            status == EFI_NOT_FOUND ? "no such file" : "device, file system or memory",
            file->status);
    else
        say(loader, "] %lu ms\r\n", took_ms);
}

err file_find_model(const struct loader *loader, struct text *name)
{
    u64 room[(sizeof(EFI_FILE_INFO) + 512) / 8]; /* FAT names end at 255 characters */
    EFI_FILE_INFO *info = (EFI_FILE_INFO *)room;
    UINTN bytes = sizeof(room);

    name->len = 0;
    (void)loader->root->SetPosition(loader->root, 0);
    while (!EFI_ERROR(loader->root->Read(loader->root, &bytes, info)) && bytes > 0) {
        char narrow[HANDOFF_NAME_MAX];
        struct text seen = TEXT_ON(narrow);
        for (usize i = 0; info->FileName[i]; i++)
            text_char(&seen, info->FileName[i] < 0x7f ? (char)info->FileName[i] : '?');
        bool first =
            name->len == 0 || memcmp(seen.ptr, name->ptr, min_u64(seen.len, name->len)) < 0;
        if (!seen.truncated && first && !(info->Attribute & EFI_FILE_DIRECTORY) &&
            str_ends(text_str(&seen), STR(".gguf"))) {
            name->len = 0;
            text_put(name, text_str(&seen));
        }
        bytes = sizeof(room);
    }
    return name->len ? OK : E_NOTFOUND;
}
