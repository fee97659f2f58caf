/*
 * console.c: the log's two ways out: the first serial port and the firmware's framebuffer.
 * Must not know what a line says. The screen never scrolls: reading a framebuffer is slow, so lines
 * go round, and the line below the newest is kept empty. Follows: 16550D data sheet, 8 (registers).
 */
#include "kernel/kernel.h"

/* ---- serial ---- */

#define COM1       0x3f8u
#define FIFO_BYTES 16u
#define SPINS_MAX  100000u /* a port that stays busy loses text, never time */

enum uart { UART_DATA, UART_INTERRUPTS, UART_FIFO, UART_LINE, UART_MODEM, UART_STATUS };
#define STATUS_EMPTY 0x20u

/* *room: how many bytes the port is known to take without being asked again. */
static void serial_char(u32 *room, char c)
{
    for (u32 spins = 0; *room == 0 && spins < SPINS_MAX; spins++)
        if (port_read8(COM1 + UART_STATUS) & STATUS_EMPTY)
            *room = FIFO_BYTES;
    port_write8(COM1 + UART_DATA, (u8)c);
    *room -= *room > 0;
}

static void serial_put(struct str line)
{
    u32 room = 0;

    for (usize i = 0; i < line.len; i++) {
        if (line.ptr[i] == '\n')
            serial_char(&room, '\r');
        serial_char(&room, line.ptr[i]);
    }
}

void serial_start(void)
{
    static const struct {
        u8 reg, value;
    } writes[] = {
        {UART_INTERRUPTS, 0}, {UART_LINE, 0x80}, /* the divisor is at 0 and 1 now: 115200 baud */
        {UART_DATA, 1},       {UART_INTERRUPTS, 0}, {UART_LINE, 0x03}, /* 8 bits, no parity */
        {UART_FIFO, 0x07},    {UART_MODEM, 0x03},
    };

    for (u32 i = 0; i < ARRAY_LEN(writes); i++)
        port_write8((u16)(COM1 + writes[i].reg), writes[i].value);
    log_sink_add(serial_put);
}

/* ---- screen ---- */

#define CELL_WIDTH       6u
#define CELL_HEIGHT      10u
#define GLYPH_WIDTH      5u
#define INK              0x00d8d8d8u /* grey: the order of the colours does not matter */
#define PIXELS_PER_SCALE 900u

/* 5 x 8 dots a character, from ' ' on: bit 5 * y + x. */
static const u64 font[95] = {
    0x0000000000, 0x0100421084, 0x000000294a, 0x0295f57d4a, 0x011f4717c4, 0x0672222273,
    0x0593511526, 0x0000000084, 0x0208210888, 0x0088842082, 0x0009575480, 0x00084f9080,
    0x1118000000, 0x00000f8000, 0x018c000000, 0x0042222210, 0x03a33ae62e, 0x03884210c4,
    0x07c444422e, 0x03a304111f, 0x0211f4a988, 0x03a3083c3f, 0x03a317844c, 0x008422221f,
    0x03a317462e, 0x01910f462e, 0x000c6018c0, 0x00886018c0, 0x0208208888, 0x0001f07c00,
    0x0088882082, 0x010044422e, 0x03ab5b422e, 0x04631fc62e, 0x03e317c62f, 0x03a210862e,
    0x01d318c527, 0x07c217843f, 0x004217843f, 0x07a31e862e, 0x04631fc631, 0x038842108e,
    0x019284211c, 0x0452519531, 0x07c2108421, 0x04631ad771, 0x04639ace31, 0x03a318c62e,
    0x004217c62f, 0x059358c62e, 0x045257c62f, 0x03e107043e, 0x010842109f, 0x03a318c631,
    0x011518c631, 0x04775ac631, 0x0462a22a31, 0x0108422a31, 0x07c222221f, 0x038421084e,
    0x0420820821, 0x039084210e, 0x0000004544, 0x07c0000000, 0x0000000082, 0x07a3e83800,
    0x03e318bc21, 0x03a210b800, 0x07a318fa10, 0x0383f8b800, 0x0084238a4c, 0x743d18f800,
    0x046318bc21, 0x0388421804, 0x3250843008, 0x024a32a421, 0x0388421086, 0x056b5aac00,
    0x046318bc00, 0x03a318b800, 0x085f18bc00, 0x843d18f800, 0x004219b400, 0x03e0e0f800,
    0x0324211c42, 0x07a318c400, 0x011518c400, 0x02ab58c400, 0x0454454400, 0x743d18c400,
    0x07c4447c00, 0x0608411098, 0x0108421084, 0x00c8441083, 0x00009ac800,
};

static struct {
    u32 *pixels;
    u32 stride, scale, columns, rows;
    u32 column, row;
} screen;

static void draw(u32 column, u32 row, char c)
{
    u64 glyph = c > ' ' && c <= '~' ? font[c - ' '] : 0;
    u32 width = CELL_WIDTH * screen.scale, height = CELL_HEIGHT * screen.scale;
    u32 *line = screen.pixels + (u64)row * height * screen.stride + column * width;

    for (u32 y = 0; y < height; y++, line += screen.stride)
        for (u32 x = 0; x < width; x++) {
            u32 dot = GLYPH_WIDTH * (y / screen.scale) + x / screen.scale;
            bool lit = x / screen.scale < GLYPH_WIDTH && glyph >> dot & 1;
            line[x] = lit ? INK : 0;
        }
}

static void clear_row(u32 row)
{
    u32 height = CELL_HEIGHT * screen.scale;

    memset(screen.pixels + (u64)row * height * screen.stride, 0,
           (usize)height * screen.stride * sizeof(u32));
}

static void next_row(void)
{
    screen.column = 0;
    screen.row = (screen.row + 1) % screen.rows;
    clear_row((screen.row + 1) % screen.rows);
}

static void screen_put(struct str line)
{
    for (usize i = 0; i < line.len; i++) {
        if (line.ptr[i] == '\n' || screen.column == screen.columns)
            next_row();
        if (line.ptr[i] != '\n')
            draw(screen.column++, screen.row, line.ptr[i]);
    }
}

void screen_start(const struct handoff_framebuffer *framebuffer)
{
    const struct handoff_framebuffer *f = framebuffer;

    if (!f->base || f->width < 320 || f->height < 200 || f->stride < f->width ||
        f->bytes / sizeof(u32) / f->stride < f->height)
        return;
    screen.pixels = vm_map_device((paddr){f->base}, f->bytes, VM_WRITE_COMBINING);
    if (!screen.pixels)
        return;
    screen.stride = (u32)f->stride;
    screen.scale = max_u32(f->width / PIXELS_PER_SCALE, 1);
    screen.columns = f->width / (CELL_WIDTH * screen.scale);
    screen.rows = f->height / (CELL_HEIGHT * screen.scale);
    for (u32 row = 0; row < screen.rows; row++)
        clear_row(row);
    log_sink_add(screen_put);
}
