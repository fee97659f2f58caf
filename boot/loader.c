/*
 * loader.c: \EFI\BOOT\BOOTX64.EFI from first line to jump. Reads configuration, kernel, model and
 * further files from the boot partition, gathers what the firmware knows, leaves the firmware.
 * Must not know what the files mean. A missing or broken model is handed on with its status, so
 * that the kernel can explain it on the network; only a broken kernel stops here. Follows:
 * UEFI 2.10 chapters 4 (tables), 7 (boot services), 12.9 (graphics), 37.5 (entropy).
 */
#include "boot/boot.h"

#include <cpuid.h>

#define CONFIG_PATH      STR("nohost.conf")
#define KERNEL_PATH      STR("nohost.elf")
#define UTF8_MARK        "\xef\xbb\xbf" /* some editors begin a file with it */
#define CONFIG_BYTES_MAX (64 * KIB)
#define STOP_SHOW_US     10000000u

/* ---- console ---- */

void say(const struct loader *loader, const char *format, ...)
{
    char bytes[LOG_LINE_MAX];
    CHAR16 wide[LOG_LINE_MAX + 1];
    struct text line = TEXT_ON(bytes);
    va_list args;

    va_start(args, format);
    text_vfmt(&line, format, args);
    va_end(args);
    for (usize i = 0; i < line.len; i++)
        wide[i] = (CHAR16)(u8)bytes[i];
    wide[line.len] = 0;
    (void)loader->table->ConOut->OutputString(loader->table->ConOut, wide);
}

void stop(const struct loader *loader, const char *format, ...)
{
    char bytes[LOG_LINE_MAX];
    struct text line = TEXT_ON(bytes);
    va_list args;

    va_start(args, format);
    text_vfmt(&line, format, args);
    va_end(args);
    say(loader, "\r\nnohost cannot start: %.*s\r\nThis machine resets in %u s.\r\n", (int)line.len,
        line.ptr, STOP_SHOW_US / 1000000);
    (void)loader->services->Stall(STOP_SHOW_US);
    for (;;)
        (void)loader->table->RuntimeServices->ResetSystem(EfiResetCold, EFI_SUCCESS, 0, NULL);
}

/* The one mutable file-scope object of the loader: CHECK has no other way to the console. */
static struct loader boot;

void panic(const char *file, int line, const char *what)
{
    stop(&boot, "mistake in the loader, %s:%d: %s", file, line, what);
}

void *loader_pages(const struct loader *loader, EFI_MEMORY_TYPE type, u64 bytes, u64 below)
{
    EFI_PHYSICAL_ADDRESS at = below ? below - 1 : 0;
    EFI_ALLOCATE_TYPE how = below ? AllocateMaxAddress : AllocateAnyPages;

    if (EFI_ERROR(loader->services->AllocatePages(how, type, div_up(bytes, PAGE_BYTES), &at)))
        return NULL;
    return (void *)(usize)at;
}

/* ---- what the firmware knows ---- */

static void *find_protocol(const struct loader *loader, EFI_GUID guid)
{
    void *face = NULL;

    return EFI_ERROR(loader->services->LocateProtocol(&guid, NULL, &face)) ? NULL : face;
}

static bool same_guid(const EFI_GUID *a, EFI_GUID b)
{
    return memcmp(a, &b, sizeof(b)) == 0;
}

static u64 find_rsdp(const struct loader *loader)
{
    for (UINTN i = 0; i < loader->table->NumberOfTableEntries; i++)
        if (same_guid(&loader->table->ConfigurationTable[i].VendorGuid,
                      (EFI_GUID)ACPI_20_TABLE_GUID))
            return (u64)(usize)loader->table->ConfigurationTable[i].VendorTable;
    return 0;
}

static void find_screen(const struct loader *loader, struct handoff_framebuffer *screen)
{
    EFI_GRAPHICS_OUTPUT_PROTOCOL *gop =
        find_protocol(loader, (EFI_GUID)EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID);

    if (!gop || !gop->Mode || !gop->Mode->Info ||
        gop->Mode->Info->PixelFormat > PixelBlueGreenRedReserved8BitPerColor)
        return;
    const EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *info = gop->Mode->Info;
    *screen = (struct handoff_framebuffer){
        .base = gop->Mode->FrameBufferBase,
        .bytes = gop->Mode->FrameBufferSize,
        .width = info->HorizontalResolution,
        .height = info->VerticalResolution,
        .stride = info->PixelsPerScanLine,
        .format = info->PixelFormat == PixelBlueGreenRedReserved8BitPerColor,
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

static void gather_entropy(const struct loader *loader, struct handoff *handoff)
{
    struct rng_protocol *rng = find_protocol(
        loader,
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

static i64 firmware_clock(const struct loader *loader)
{
    EFI_TIME now;

    if (EFI_ERROR(loader->table->RuntimeServices->GetTime(&now, NULL)) || now.Year < 2020 ||
        now.Month < 1 || now.Month > 12 || now.Day < 1 || now.Day > 31)
        return 0;
    i64 zone_s = now.TimeZone == EFI_UNSPECIFIED_TIMEZONE ? 0 : now.TimeZone * 60;
    return days_of(now.Year, now.Month, now.Day) * 86400 + now.Hour * 3600 + now.Minute * 60 +
           now.Second - zone_s;
}

static void gather_facts(const struct loader *loader)
{
    struct handoff *handoff = loader->handoff;

    handoff->rsdp = find_rsdp(loader);
    handoff->efi_system_table = (u64)(usize)loader->table;
    handoff->unix_s = firmware_clock(loader);
    find_screen(loader, &handoff->framebuffer);
    gather_entropy(loader, handoff);
}

/* ---- files: the loader needs three keys of the configuration, the kernel reads the rest ---- */

static struct handoff_file *next_file(const struct loader *loader)
{
    CHECK(loader->handoff->file_count < HANDOFF_FILES_MAX);
    return &loader->handoff->files[loader->handoff->file_count++];
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

static void load_file(const struct loader *loader, struct str path)
{
    if (loader->handoff->file_count < HANDOFF_FILES_MAX)
        file_load(loader, path, EfiLoaderData, next_file(loader));
    else
        say(loader, "  %.*s: more than %u files, left out\r\n", (int)path.len, path.ptr,
            HANDOFF_FILES_MAX);
}

/* "x-00001-of-00003.gguf" is one model in three files. Returns 3, or 1 for any other name. */
static u64 parts_of(struct str name)
{
    struct str mark = STR("-00001-of-"), tail = STR(".gguf");
    u64 count = 1;

    if (name.len < mark.len + 5 + tail.len || !str_ends(name, tail))
        return 1;
    usize digits = name.len - tail.len - 5;
    if (!str_ends(str_slice(name, 0, digits), mark) ||
        str_to_u64(str_slice(name, digits, digits + 5), &count) != OK || count == 0)
        return 1;
    return count;
}

static void load_model(const struct loader *loader, struct str config)
{
    char found[HANDOFF_NAME_MAX], part_name[HANDOFF_NAME_MAX];
    struct text first = TEXT_ON(found);

    text_put(&first, config_value(config, STR("model"), 0));
    if (first.len == 0 && file_find_model(loader, &first) != OK) {
        say(loader, "  no model: nohost.conf names none and there is no *.gguf\r\n");
        return;
    }
    u64 count = parts_of(text_str(&first));
    for (u64 part = 1; part <= count && part <= HANDOFF_FILES_MAX; part++) {
        struct text name = TEXT_ON(part_name);
        text_put(&name, text_str(&first));
        if (count > 1) {
            name.len -= STR("00001-of-00001.gguf").len;
            text_fmt(&name, "%05lu-of-%05lu.gguf", part, count);
        }
        load_file(loader, text_str(&name));
    }
}

static struct str load_config(const struct loader *loader)
{
    struct handoff_file *file = next_file(loader);

    file_load(loader, CONFIG_PATH, EfiLoaderData, file);
    if (file->bytes > CONFIG_BYTES_MAX) {
        say(loader, "  nohost.conf is over %u KiB: ignored\r\n", (u32)(CONFIG_BYTES_MAX / KIB));
        file->status = (u32)EFI_BAD_BUFFER_SIZE;
        file->bytes = 0;
    }
    struct str text = {(const char *)(usize)file->base, file->bytes};
    return str_starts(text, STR(UTF8_MARK)) ? str_slice(text, 3, text.len) : text;
}

static struct str load_kernel(const struct loader *loader, struct str config)
{
    struct handoff_file file;
    struct str path = config_value(config, STR("kernel"), 0);

    file_load(loader, path.len ? path : KERNEL_PATH, EfiBootServicesData, &file);
    if (file.status)
        stop(loader, "the kernel file is missing or unreadable (status %u)", file.status);
    return (struct str){(const char *)(usize)file.base, file.bytes};
}

/* ---- the way through ---- */

static u64 tsc(void)
{
    return __builtin_ia32_rdtsc();
}

/* The shortest of a few waits: a busy host makes each of them longer, none shorter. */
static u64 measure_tsc(const struct loader *loader)
{
    u64 best = UINT64_MAX;

    for (u32 i = 0; i < 5; i++) {
        u64 from = tsc();
        (void)loader->services->Stall(200);
        best = min_u64(best, tsc() - from);
    }
    return max_u64(best * 5, 1);
}

/* The kernel's floor, looked at here because here there is a screen to say so. */
static bool cpu_is_enough(void)
{
    const u32 wanted_1 = bit_FMA | bit_XSAVE | bit_AVX | bit_F16C;
    const u32 wanted_7 = bit_BMI | bit_AVX2 | bit_BMI2;
    u32 eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & wanted_1) == wanted_1 &&
           __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & wanted_7) == wanted_7;
}

static void start(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    boot = (struct loader){.image = image, .table = table, .services = table->BootServices};
    boot.tsc_start = tsc();
    (void)boot.services->SetWatchdogTimer(0, 0, 0, NULL);
    boot.tsc_per_ms = measure_tsc(&boot);
    say(&boot, "\r\nnohost loader\r\n");
    if (!cpu_is_enough())
        stop(&boot, "this processor lacks AVX2, FMA, F16C or BMI2");
    boot.handoff = loader_pages(&boot, EfiLoaderData, sizeof(struct handoff), 0);
    if (!boot.handoff)
        stop(&boot, "no memory for the handoff");
    memset(boot.handoff, 0, sizeof(*boot.handoff));
    boot.handoff->magic = HANDOFF_MAGIC;
    boot.handoff->version = HANDOFF_VERSION;
    boot.handoff->bytes = sizeof(struct handoff);
}

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table);

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table)
{
    struct image image = {};
    struct str extra;

    start(handle, table);
    file_volume_open(&boot);
    struct str config = load_config(&boot);
    struct str kernel = load_kernel(&boot, config);
    if (image_place(&boot, kernel, &image) != OK || image_map(&boot, kernel, &image) != OK)
        stop(&boot, "the kernel file is damaged");
    load_model(&boot, config);
    for (u32 i = 0; (extra = config_value(config, STR("file"), i)).len; i++)
        load_file(&boot, extra);
    gather_facts(&boot);
    boot.handoff->kernel_base = image.physical;
    boot.handoff->kernel_bytes = image.bytes;
    boot.handoff->page_table = image.page_table;
    if (memory_map_leave(&boot) != OK)
        stop(&boot, "the firmware does not let go (ExitBootServices)");
    boot.handoff->boot_ns = (tsc() - boot.tsc_start) * NS_PER_MS / boot.tsc_per_ms;
    kernel_jump(HANDOFF_DIRECT_MAP + (u64)(usize)boot.handoff, image.page_table, image.entry);
}
