/*
 * file.c: whole files of the boot partition into pages, with a progress bar. Knows the firmware's
 * file protocol, not what a file means. Follows: UEFI 2.10, 13.4 (simple file system), 13.5 (file).
 */
#include "boot/boot.h"

#include <efilink.h>

#define CHUNK_BYTES (4 * MIB) /* big enough that the firmware's cost per call does not show */
#define BAR_STEPS   32u
#define STATUS_BITS 0x7fffffffu

void file_volume_open(void)
{
    EFI_GUID image_guid = LOADED_IMAGE_PROTOCOL, volume_guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
    EFI_HANDLE_PROTOCOL find = boot.services->HandleProtocol;
    EFI_LOADED_IMAGE *self;
    EFI_FILE_IO_INTERFACE *volume;

    if (EFI_ERROR(find(boot.image, &image_guid, (void **)&self)) ||
        EFI_ERROR(find(self->DeviceHandle, &volume_guid, (void **)&volume)) ||
        EFI_ERROR(volume->OpenVolume(volume, &boot.root)))
        stop("the partition that I was started from cannot be opened");
}

/* File names are ASCII here; folders are parted by '/' in nohost.conf and by '\' in UEFI. */
static EFI_STATUS open(const char *name, EFI_FILE_HANDLE *handle)
{
    CHAR16 wide[HANDOFF_NAME_MAX] = {};

    for (usize i = 0; name[i]; i++)
        wide[i] = name[i] == '/' ? '\\' : (CHAR16)(u8)name[i];
    return boot.root->Open(boot.root, handle, wide, EFI_FILE_MODE_READ, 0);
}

/* Pages for all of an open file. */
static EFI_STATUS make_room(EFI_FILE_HANDLE handle, EFI_MEMORY_TYPE type, struct handoff_file *file)
{
    EFI_STATUS status = handle->SetPosition(handle, UINT64_MAX); /* UEFI: this means the end */

    if (!EFI_ERROR(status))
        status = handle->GetPosition(handle, &file->bytes);
    if (!EFI_ERROR(status))
        status = handle->SetPosition(handle, 0);
    if (!EFI_ERROR(status))
        status = boot.services->AllocatePages(
            AllocateAnyPages, type, div_up(max_u64(file->bytes, 1), PAGE_BYTES), &file->base);
    return status;
}

static EFI_STATUS read_all(EFI_FILE_HANDLE handle, const struct handoff_file *file)
{
    u64 done = 0, shown = 0;

    say("%9lu KiB [", div_up(file->bytes, KIB));
    while (done < file->bytes) {
        UINTN part = min_u64(file->bytes - done, CHUNK_BYTES);
        EFI_STATUS status = handle->Read(handle, &part, (void *)(usize)(file->base + done));
        if (EFI_ERROR(status) || part == 0)
            return EFI_ERROR(status) ? status : EFI_END_OF_FILE;
        done += part;
        for (; shown < done * BAR_STEPS / file->bytes; shown++)
            say("#");
    }
    say("]\r\n");
    return EFI_SUCCESS;
}

void file_load(struct str path, EFI_MEMORY_TYPE type, struct handoff_file *file)
{
    EFI_FILE_HANDLE handle;

    *file = (struct handoff_file){};
    memcpy(file->name, path.ptr, min_u64(path.len, HANDOFF_NAME_MAX - 1));
    say("  %-40s ", file->name);
    EFI_STATUS status = open(file->name, &handle);
    if (!EFI_ERROR(status)) {
        status = make_room(handle, type, file);
        if (!EFI_ERROR(status))
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

void file_find_model(struct text *name)
{
    u64 room[(sizeof(EFI_FILE_INFO) + 512) / 8]; /* FAT names end at 255 characters */
    EFI_FILE_INFO *info = (EFI_FILE_INFO *)room;

    for (UINTN bytes = sizeof(room);
         !EFI_ERROR(boot.root->Read(boot.root, &bytes, info)) && bytes > 0; bytes = sizeof(room)) {
        char narrow[HANDOFF_NAME_MAX];
        struct text seen = TEXT_ON(narrow);
        for (usize i = 0; info->FileName[i]; i++)
            text_char(&seen, info->FileName[i] < 0x7f ? (char)info->FileName[i] : '?');
        if (seen.truncated || info->Attribute & EFI_FILE_DIRECTORY ||
            !str_ends(text_str(&seen), STR(".gguf")))
            continue;
        if (name->len == 0 || memcmp(seen.ptr, name->ptr, min_u64(seen.len, name->len)) < 0) {
            name->len = 0;
            text_put(name, text_str(&seen));
        }
    }
}
