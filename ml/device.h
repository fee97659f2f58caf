/*
 * device.h: the cores of this CPU as a device that runs a compiled program: load once, start a run,
 * advance it in slices. A run is a list of launches; the items of a launch are drawn by the workers
 * and, in bounded slices, by the caller's own core, so one core works and two give two. Nothing
 * here waits. (A GPU takes the same five calls later.)
 */
#ifndef NOHOST_DEVICE_H
#define NOHOST_DEVICE_H

#include "ml/compile/compile.h"

struct device;

/* threads: cores that compute including the caller's, 0: all. Starts the workers. Memory from
 * pages_alloc. */
err device_open(struct device **device, u32 threads);

/* A program with its code sealed, workspace, scratch and argument table: there for ever, for a
 * machine serves one model from its start to its end. E_NOMEM. */
struct loaded;
err device_load(struct device *device, const struct program *program, struct loaded **loaded);
/* Where external i lives. Must be set for every external before the first start. */
void device_bind(struct loaded *loaded, u32 external, void *data);
/* Address of output i; valid after the run. */
void *device_output(const struct loaded *loaded, u32 output);

/* One run at a time per device (CHECKed). sym_value: one per symbol, within its bound (CHECKed). */
void device_start(struct device *device, struct loaded *loaded, const u32 *sym_value);
/* Instead of a program: work(ctx, item, worker) for every item below `items`, on all cores, in any
 * order. worker is 0..threads-1, each at one item at a time. Advanced like a run. */
typedef void (*device_work_fn)(void *ctx, u32 item, u32 worker);
void device_start_work(struct device *device, device_work_fn work, void *ctx, u32 items);
/* Computes until the run has finished (true) or time_ns() passes deadline_ns (false). */
bool device_advance(struct device *device, u64 deadline_ns);

#endif
