/*
 * loader.c: \EFI\BOOT\BOOTX64.EFI from first line to jump. Reads configuration, kernel, model and
 * further files from the boot partition, gathers what the firmware knows, leaves the firmware.
 * Must not know what the files mean. A missing or broken model is handed on with its status, so
 * that the kernel can explain it on the network; only a broken kernel stops here. Follows:
 * UEFI 2.10 chapters 4 (tables), 7 (boot services), 12.9 (graphics), 37.5 (entropy).
 */
#include "boot/boot.h"

#include <cpuid.h>

#define CONFIG_PATH  STR("nohost.conf")
#define KERNEL_PATH  STR("nohost.elf")
#define UTF8_MARK    "\xef\xbb\xbf" /* some editors begin a file with it */
#define STOP_SHOW_US 10000000u

/* ---- console ---- */

struct loader boot;

static void print(const char *format, va_list args)
{
    char bytes[LOG_LINE_MAX];
    CHAR16 wide[LOG_LINE_MAX + 1];
    struct text line = TEXT_ON(bytes);

    text_vfmt(&line, format, args);
    for (usize i = 0; i < line.len; i++)
        wide[i] = (CHAR16)(u8)bytes[i];
    wide[line.len] = 0;
    (void)boot.table->ConOut->OutputString(boot.table->ConOut, wide);
}

void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print(format, args);
    va_end(args);
}

void stop(const char *format, ...)
{
    va_list args;

    say("\r\nnohost cannot start: ");
    va_start(args, format);
    print(format, args);
    va_end(args);
    say("\r\nThis machine resets in %u s.\r\n", STOP_SHOW_US / 1000000);
    (void)boot.services->Stall(STOP_SHOW_US);
    for (;;)
        (void)boot.table->RuntimeServices->ResetSystem(EfiResetCold, EFI_SUCCESS, 0, NULL);
}

void panic(const char *file, int line, const char *what)
{
    stop("mistake in the loader, %s:%d: %s", file, line, what);
}

void *loader_pages(EFI_MEMORY_TYPE type, u64 bytes, u64 below)
{
    EFI_PHYSICAL_ADDRESS at = below - 1;

    if (EFI_ERROR(
            boot.services->AllocatePages(AllocateMaxAddress, type, div_up(bytes, PAGE_BYTES), &at)))
        stop("no memory for %lu KiB", bytes / KIB);
    return memset((void *)(usize)at, 0, bytes);
}

/* ---- what the firmware knows ---- */

static void *find_protocol(EFI_GUID guid)
{
    void *face = NULL;

    return EFI_ERROR(boot.services->LocateProtocol(&guid, NULL, &face)) ? NULL : face;
}

static u64 find_rsdp(void)
{
    const EFI_GUID guid = ACPI_20_TABLE_GUID;

    for (UINTN i = 0; i < boot.table->NumberOfTableEntries; i++)
        if (memcmp(&boot.table->ConfigurationTable[i].VendorGuid, &guid, sizeof(guid)) == 0)
            return (usize)boot.table->ConfigurationTable[i].VendorTable;
    return 0;
}

static void find_screen(struct handoff_framebuffer *screen)
{
    EFI_GRAPHICS_OUTPUT_PROTOCOL *gop = find_protocol((EFI_GUID)EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID);

    if (!gop || !gop->Mode || !gop->Mode->Info ||
        gop->Mode->Info->PixelFormat > PixelBlueGreenRedReserved8BitPerColor)
        return;
    *screen = (struct handoff_framebuffer){
        .base = gop->Mode->FrameBufferBase,
        .bytes = gop->Mode->FrameBufferSize,
        .width = gop->Mode->Info->HorizontalResolution,
        .height = gop->Mode->Info->VerticalResolution,
        .stride = gop->Mode->Info->PixelsPerScanLine,
    };
}

struct rng_protocol { /* gnu-efi does not declare it: UEFI 2.10, 37.5 */
    void *get_info;
    EFI_STATUS(EFIAPI *get)(struct rng_protocol *face, EFI_GUID *algorithm, UINTN bytes, u8 *out);
};

__attribute__((target("rdrnd"))) static u32 rdrand_fill(u8 *out, u32 bytes)
{
    u32 eax, ebx, ecx = 0, edx, done = 0;
    unsigned long long word;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_RDRND))
        return 0;
    for (u32 tries = 0; tries < 100 && done < bytes; tries++)
        if (__builtin_ia32_rdrand64_step(&word)) {
            memcpy(out + done, &word, sizeof(word));
            done += (u32)sizeof(word);
        }
    return done;
}

static void gather_entropy(struct handoff *handoff)
{
    struct rng_protocol *rng = find_protocol(
        (EFI_GUID){0x3152bca5, 0xeade, 0x433d, {0x86, 0x2e, 0xc0, 0x1c, 0xdc, 0x29, 0x1f, 0x44}});

    handoff->entropy_bytes = sizeof(handoff->entropy);
    if (!rng || EFI_ERROR(rng->get(rng, NULL, sizeof(handoff->entropy), handoff->entropy)))
        handoff->entropy_bytes = rdrand_fill(handoff->entropy, sizeof(handoff->entropy));
}

/* Days since 1970 of a date in the Gregorian calendar, counted in years that begin in March. */
static i64 days_of(i64 year, u32 month, u32 day)
{
    i64 y = year - (month <= 2);
    u32 day_of_year = (153 * (month + (month > 2 ? -3u : 9u)) + 2) / 5 + day - 1;

    return y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

static i64 firmware_clock(void)
{
    EFI_TIME now;

    if (EFI_ERROR(boot.table->RuntimeServices->GetTime(&now, NULL)) || now.Year < 2020)
        return 0;
    i64 zone_s = now.TimeZone == EFI_UNSPECIFIED_TIMEZONE ? 0 : now.TimeZone * 60;
    return days_of(now.Year, now.Month, now.Day) * 86400 + now.Hour * 3600 + now.Minute * 60 +
           now.Second - zone_s;
}

/* ---- files: the loader needs three keys of the configuration, the kernel reads the rest ---- */

static void hand_on(struct str path)
{
    if (boot.handoff->file_count < HANDOFF_FILES_MAX)
        file_load(path, EfiLoaderData, &boot.handoff->files[boot.handoff->file_count++]);
    else
        say("  %.*s: more than %u files, left out\r\n", (int)path.len, path.ptr, HANDOFF_FILES_MAX);
}

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

/* "x-00001-of-00003.gguf" is one model in three files. Returns 3, or 1 for any other name. */
static u64 parts_of(struct str name)
{
    usize at = str_find(name, STR("-00001-of-"));
    u64 count = 1;

    if (name.len - at == STR("-00001-of-00003.gguf").len)
        (void)!str_to_u64(str_slice(name, at + 10, at + 15), &count);
    return count;
}

static void load_model(struct str config)
{
    char found[HANDOFF_NAME_MAX], part_name[HANDOFF_NAME_MAX];
    struct text first = TEXT_ON(found);

    text_put(&first, config_value(config, STR("model"), 0));
    if (first.len == 0)
        file_find_model(&first);
    if (first.len == 0)
        say("  no model: nohost.conf names none and there is no *.gguf\r\n");
    u64 count = first.len ? parts_of(text_str(&first)) : 0;
    for (u64 part = 1; part <= count && part <= HANDOFF_FILES_MAX; part++) {
        struct text name = TEXT_ON(part_name);
        text_put(&name, text_str(&first));
        if (count > 1) {
            name.len -= STR("00001-of-00001.gguf").len;
            text_fmt(&name, "%05lu-of-%05lu.gguf", part, count);
        }
        hand_on(text_str(&name));
    }
}

static struct str load_config(void)
{
    const struct handoff_file *file = boot.handoff->files;

    hand_on(CONFIG_PATH);
    struct str text = {(const char *)(usize)file->base, file->bytes};
    return str_starts(text, STR(UTF8_MARK)) ? str_slice(text, 3, text.len) : text;
}

static struct str load_kernel(struct str config)
{
    struct handoff_file file;
    struct str path = config_value(config, STR("kernel"), 0);

    file_load(path.len ? path : KERNEL_PATH, EfiBootServicesData, &file);
    if (file.status)
        stop("the kernel file is missing or unreadable (status %lu)", file.status);
    return (struct str){(const char *)(usize)file.base, file.bytes};
}

/* ---- the way through ---- */

/* The kernel's floor, looked at here because here there is a screen to say so. */
static bool cpu_is_enough(void)
{
    const u32 wanted_1 = bit_FMA | bit_XSAVE | bit_AVX | bit_F16C;
    const u32 wanted_7 = bit_BMI | bit_AVX2 | bit_BMI2;
    u32 eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & wanted_1) == wanted_1 &&
           __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & wanted_7) == wanted_7;
}

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table);

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table)
{
    struct str extra;

    boot = (struct loader){.image = handle, .table = table, .services = table->BootServices};
    (void)boot.services->SetWatchdogTimer(0, 0, 0, NULL);
    say("\r\nnohost loader\r\n");
    if (!cpu_is_enough())
        stop("this processor lacks AVX2, FMA, F16C or BMI2");
    boot.map = loader_pages(EfiBootServicesData, MAP_BYTES, UINT64_MAX);
    boot.handoff = loader_pages(EfiLoaderData, sizeof(struct handoff), UINT64_MAX);
    file_volume_open();
    struct str config = load_config();
    u64 entry = image_load(load_kernel(config));
    load_model(config);
    for (u32 i = 0; (extra = config_value(config, STR("file"), i)).len; i++)
        hand_on(extra);
    boot.handoff->magic = HANDOFF_MAGIC;
    boot.handoff->version = HANDOFF_VERSION;
    boot.handoff->bytes = sizeof(struct handoff);
    boot.handoff->rsdp = find_rsdp();
    boot.handoff->unix_s = firmware_clock();
    find_screen(&boot.handoff->framebuffer);
    gather_entropy(boot.handoff);
    memory_map_leave();
    kernel_jump(HANDOFF_DIRECT_MAP + (usize)boot.handoff, boot.handoff->page_table, entry);
}
