/*
 * device.h: who runs a compiled program: the cores of this CPU or an AMD card, behind the same
 * calls: load once, give the externals memory and contents, start a run, advance it. Nothing here
 * waits.
 */
#ifndef NOHOST_DEVICE_H
#define NOHOST_DEVICE_H

#include "ml/compile/compile.h"

struct gpu;
struct device;
struct loaded;

/* threads: cores that compute including the caller's, 0: all. Starts the workers. Memory from
 * pages_alloc. */
err device_open(struct device **device, u32 threads);
/* OK: READY. E_BUSY: it starts or recovers. E_DEVICE: it is dead, as *why says. */
err device_gpu_state(struct gpu *gpu, struct text *why);
/* The card must be READY: E_STATE. */
err device_open_gpu(struct device **device, struct gpu *gpu);

/* What programs for it are compiled for; bytes that its memory has left. */
struct target device_target(struct device *device);
u64 device_bytes_free(struct device *device);

/* A program with its code, workspace, scratch and argument table: there for ever, for a machine
 * serves one model from its start to its end. E_NOMEM. */
err device_load(struct device *device, const struct program *program, struct loaded **loaded);

/* Memory of external i, for each before the first start. `input`: the CPU writes it in place
 * between runs, at device_input; else it is filled through windows. E_NOMEM. */
err device_alloc(struct loaded *loaded, u32 external, u64 bytes, bool input);
void *device_input(const struct loaded *loaded, u32 external);

/* Another program with the same externals uses those of `from`, its inputs too. */
void device_share(struct loaded *loaded, struct loaded *from);

/* The largest window, made so that `least` bytes fit; 0: E_NOMEM. */
u64 device_window_bytes(struct device *device, u64 least);
/* Where to write these bytes of an external, all of them; device_send makes them the external's.
 * One at a time. NULL: those sent before are still on their way, advance. */
u8 *device_window(struct loaded *loaded, u32 external, u64 offset, u64 bytes);
err device_send(struct loaded *loaded);
/* Whether all that was sent has arrived: OK, E_BUSY, E_DEVICE. */
err device_sent(struct loaded *loaded);
/* Zeroes; with the runs around it in order. E_BUSY: again. */
err device_zero(struct loaded *loaded, u32 external, u64 offset, u64 bytes);
/* The same for what kernels have left in memory of their own. No run is under way. */
err device_zero_scratch(struct loaded *loaded);

/* One run at a time per device (CHECKed). sym_value: one per symbol, within its bound (CHECKed). */
void device_start(struct device *device, struct loaded *loaded, const u32 *sym_value);
/* Computes until the run has finished, or time_ns() passes deadline_ns: E_BUSY. E_DEVICE: it never
 * will. */
err device_advance(struct device *device, u64 deadline_ns);
/* Output i; valid after the run. */
void *device_output(const struct loaded *loaded, u32 output);
/* OK: it may be started. E_BUSY: it recovers. E_STATE: what its memory held is gone, so
 * device_revive and everything sent again. E_DEVICE: dead. The CPU: always OK. */
err device_health(struct device *device, struct text *why);
err device_revive(struct loaded *loaded);

/* The CPU's cores can do other work than programs: work(ctx, item, worker) for every item below
 * `items`, in any order. worker is 0..threads-1, each at one item at a time. Advanced like a run.
 */
typedef void (*device_work_fn)(void *ctx, u32 item, u32 worker);
void device_start_work(struct device *device, device_work_fn work, void *ctx, u32 items);

#endif
