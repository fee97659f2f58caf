/*
 * loader.c: \EFI\BOOT\BOOTX64.EFI from first line to jump: the console, what the firmware knows,
 * the way out of it. A missing or broken model is handed on with its status, so that the kernel can
 * explain it on the network; only a broken kernel stops here. Follows: UEFI 2.10 chapters 4
 * (tables), 7 (boot services), 12.9 (graphics), 37.5 (entropy); AMD64 volume 2, 3.1 (CR0, EFER).
 */
#include "boot/boot.h"

#include <cpuid.h>

#define STOP_SHOW_US    10000000u
#define MAP_BYTES       (256 * KIB)
#define LOW_END         0xa0000u
#define RDRAND_TRIES    100u
#define LEAVE_TRIES_MAX 8u
#define CR4_FIVE_LEVELS (1u << 12)

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

__attribute__((target("rdrnd"))) static void gather_entropy(struct handoff *handoff)
{
    struct rng_protocol *rng = find_protocol(
        (EFI_GUID){0x3152bca5, 0xeade, 0x433d, {0x86, 0x2e, 0xc0, 0x1c, 0xdc, 0x29, 0x1f, 0x44}});
    u32 eax, ebx, ecx = 0, edx, left = sizeof(handoff->entropy);
    unsigned long long word;

    if (rng && !EFI_ERROR(rng->get(rng, NULL, left, handoff->entropy)))
        left = 0;
    else if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_RDRND))
        return;
    for (u32 tries = 0; tries < RDRAND_TRIES && left; tries++)
        if (__builtin_ia32_rdrand64_step(&word)) {
            left -= (u32)sizeof(word);
            memcpy(handoff->entropy + left, &word, sizeof(word));
        }
    handoff->entropy_bytes = sizeof(handoff->entropy) - left;
}

/* Seconds since 1970, in the years in which every fourth is a leap year; 0: the clock is not set.
 */
static i64 firmware_clock(void)
{
    static const u16 days_before[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    EFI_TIME t;

    if (EFI_ERROR(boot.table->RuntimeServices->GetTime(&t, NULL)) || t.Year < 2020 ||
        t.Year > 2099 || t.Month < 1 || t.Month > 12)
        return 0;
    i64 zone_s = t.TimeZone == EFI_UNSPECIFIED_TIMEZONE ? 0 : t.TimeZone * 60;
    i64 days = (t.Year - 1970) * 365 + (t.Year - 1969) / 4 + days_before[t.Month - 1] + t.Day - 1 +
               (t.Year % 4 == 0 && t.Month > 2);
    return days * 86400 + t.Hour * 3600 + t.Minute * 60 + t.Second - zone_s;
}

/* ---- the memory map: types beyond the table, and those not named in it, are no RAM of ours ----
 */

static const u8 kinds[EfiMaxMemoryType] = {
    [EfiLoaderCode] = HANDOFF_FREE,         [EfiLoaderData] = HANDOFF_KEPT,
    [EfiBootServicesCode] = HANDOFF_FREE,   [EfiBootServicesData] = HANDOFF_FREE,
    [EfiConventionalMemory] = HANDOFF_FREE, [EfiRuntimeServicesCode] = HANDOFF_KEPT,
    [EfiACPIMemoryNVS] = HANDOFF_KEPT,      [EfiRuntimeServicesData] = HANDOFF_KEPT,
    [EfiACPIReclaimMemory] = HANDOFF_KEPT,
};

UINTN memory_map_read(void)
{
    struct handoff *handoff = boot.handoff;
    UINTN bytes = MAP_BYTES, key, stride;
    UINT32 version;

    if (EFI_ERROR(boot.services->GetMemoryMap(&bytes, (EFI_MEMORY_DESCRIPTOR *)(void *)boot.map,
                                              &key, &stride, &version)))
        stop("the firmware tells no memory map of up to %u KiB", (u32)(MAP_BYTES / KIB));
    handoff->range_count = 0;
    for (UINTN at = 0; at + stride <= bytes; at += stride) {
        const EFI_MEMORY_DESCRIPTOR *d = (const void *)(boot.map + at);
        if (d->Type >= EfiMaxMemoryType || !kinds[d->Type] || !d->NumberOfPages)
            continue;
        if (handoff->range_count == HANDOFF_RANGES_MAX)
            stop("more than %u ranges of memory", HANDOFF_RANGES_MAX);
        handoff->ranges[handoff->range_count++] =
            (struct handoff_range){d->PhysicalStart, d->NumberOfPages * PAGE_BYTES, kinds[d->Type]};
    }
    return key;
}

/* ---- the way through ---- */

/* What the kernel needs, looked at here because here there is a screen to say so. */
static void check_cpu(void)
{
    const u32 wanted_1 = bit_FMA | bit_XSAVE | bit_AVX | bit_F16C;
    const u32 wanted_7 = bit_BMI | bit_AVX2 | bit_BMI2;
    u32 eax, ebx, ecx, edx;
    u64 cr4;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & wanted_1) != wanted_1 ||
        !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (ebx & wanted_7) != wanted_7)
        stop("this processor lacks AVX2, FMA, F16C or BMI2");
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if (cr4 & CR4_FIVE_LEVELS)
        stop("the firmware uses five-level paging, this loader knows four");
}

/* Leaving may itself change the map: then the key is stale, and the map is read anew. */
static void leave_firmware(void)
{
    for (u32 tries = 0; tries < LEAVE_TRIES_MAX; tries++)
        if (!EFI_ERROR(boot.services->ExitBootServices(boot.image, memory_map_read())))
            return;
    stop("the firmware does not let go (ExitBootServices)");
}

void kernel_jump(u64 handoff, u64 page_table, u64 entry)
{
    __asm__ volatile("cli\n\tcld\n\t"
                     "mov $0xc0000080, %%ecx\n\trdmsr\n\t" /* EFER: no-execute */
                     "or $0x800, %%eax\n\twrmsr\n\t"
                     "mov %%cr0, %%rax\n\t" /* write-protect: ring 0 keeps to read-only pages too */
                     "or $0x10000, %%rax\n\tmov %%rax, %%cr0\n\t"
                     "mov %1, %%cr3\n\tjmp *%2"
                     :
                     : "D"(handoff), "r"(page_table), "r"(entry)
                     : "rax", "rcx", "rdx", "memory");
    __builtin_unreachable();
}

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table);

EFI_STATUS efi_main(EFI_HANDLE handle, EFI_SYSTEM_TABLE *table)
{
    boot = (struct loader){.image = handle, .table = table, .services = table->BootServices};
    (void)boot.services->SetWatchdogTimer(0, 0, 0, NULL);
    say("\r\nnohost loader\r\n");
    check_cpu();
    boot.map = loader_pages(EfiBootServicesData, MAP_BYTES, UINT64_MAX);
    struct handoff *handoff = loader_pages(EfiLoaderData, sizeof(struct handoff), UINT64_MAX);
    boot.handoff = handoff;
    u64 entry = files_load();
    handoff->magic = HANDOFF_MAGIC;
    handoff->version = HANDOFF_VERSION;
    handoff->bytes = sizeof(struct handoff);
    handoff->rsdp = find_rsdp();
    handoff->unix_s = firmware_clock();
    handoff->low_page = LOW_END - 1;
    if (EFI_ERROR(
            boot.services->AllocatePages(AllocateMaxAddress, EfiLoaderData, 1, &handoff->low_page)))
        handoff->low_page = 0;
    find_screen(&handoff->framebuffer);
    gather_entropy(handoff);
    leave_firmware();
    kernel_jump(HANDOFF_DIRECT_MAP + (usize)handoff, handoff->page_table, entry);
}
