/*
 * watchdog.c: one hardware timer that resets the machine unless it is fed. Must not know who feeds
 * it. Follows: Intel 6300ESB data sheet, chapter 16 (watchdog timer).
 */
#include "pci/pci.h"

#define VENDOR_INTEL 0x8086u
#define ID_6300ESB   0x25abu

enum esb_config { ESB_CONFIG = 0x60, ESB_LOCK = 0x68 };
enum esb_register { ESB_TIMER1 = 0x00, ESB_TIMER2 = 0x04, ESB_RELOAD = 0x0c };
#define CONFIG_RESET_1KHZ 0x0003u /* no interrupt in between, slow clock, reset at the end */
#define LOCK_ENABLE       0x02u
#define RELOAD_FEED       0x100u
#define TICKS_PER_S       1000u
#define PRELOAD_MAX       0xfffffu

/* Each of the timer registers opens for one write after these two. */
static void unlock(struct watchdog *watchdog)
{
    mmio_write16(&watchdog->registers, ESB_RELOAD, 0x80);
    mmio_write16(&watchdog->registers, ESB_RELOAD, 0x86);
}

err watchdog_start(struct pci_bus *bus, u32 timeout_s, struct watchdog *watchdog)
{
    struct pci_dev *dev = pci_find(bus, NULL, VENDOR_INTEL, ID_6300ESB);
    u32 half = min_u32(timeout_s * TICKS_PER_S / 2, PRELOAD_MAX); /* of two stages */

    *watchdog = (struct watchdog){};
    if (!dev || !timeout_s)
        return E_NOTFOUND;
    TRY(pci_map_bar(dev, 0, &watchdog->registers));
    pci_enable(dev, false);
    watchdog->name = dev->name;
    mmio_write16(&dev->config, ESB_CONFIG, CONFIG_RESET_1KHZ);
    unlock(watchdog);
    mmio_write32(&watchdog->registers, ESB_TIMER1, half);
    unlock(watchdog);
    mmio_write32(&watchdog->registers, ESB_TIMER2, half);
    watchdog_feed(watchdog);
    mmio_write8(&dev->config, ESB_LOCK, LOCK_ENABLE);
    log_info(dev->name, "watchdog: reset %u ms after the event loop stops", 2 * half);
    return OK;
}

void watchdog_feed(struct watchdog *watchdog)
{
    if (!watchdog->name)
        return;
    unlock(watchdog);
    mmio_write16(&watchdog->registers, ESB_RELOAD, RELOAD_FEED);
}
