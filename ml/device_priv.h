/*
 * device_priv.h: what the two kinds of devices share: the calls behind device.h, and a program's
 * tables, which a run fills in.
 */
#ifndef NOHOST_DEVICE_PRIV_H
#define NOHOST_DEVICE_PRIV_H

#include "ml/device.h"

struct device_ops { /* as in device.h; what is NULL has nothing to do */
    struct target (*target)(struct device *device);
    u64 (*bytes_free)(struct device *device);
    err (*load)(struct device *device, const struct program *program, struct loaded **loaded);
    err (*alloc)(struct loaded *loaded, u32 external, u64 bytes, bool input);
    u64 (*window_bytes)(struct device *device, u64 least);
    u8 *(*window)(struct loaded *loaded, u32 external, u64 offset, u64 bytes);
    err (*send)(struct loaded *loaded);
    err (*sent)(struct loaded *loaded);
    err (*zero)(struct loaded *loaded, u32 external, u64 offset, u64 bytes);
    err (*zero_scratch)(struct loaded *loaded);
    void (*start)(struct device *device, struct loaded *loaded);
    err (*advance)(struct device *device, u64 deadline_ns);
    err (*health)(struct device *device, struct text *why);
    err (*revive)(struct loaded *loaded);
};

struct device {
    const struct device_ops *ops;
};

struct loaded {
    struct device *device;
    struct program program;
    u64 *table; /* the global table (compile.h), as kernels see it */
    u8 **cpu;   /* where the CPU reaches externals and buffers; NULL: it does not */
    u64 *args;  /* per launch, as the kernels read them; a device may put them elsewhere */
    u64 *items; /* per launch, of this run */
    struct loaded *inputs; /* whose inputs it reads; NULL: its own */
};

/* Bytes of an arena for the tables; fills them in from it. */
usize loaded_bytes(const struct program *program);
void loaded_init(struct loaded *loaded, struct device *device, const struct program *program,
                 struct arena *arena);

/* Groups of a dispatch in this run. */
u64 loaded_groups(const struct loaded *loaded, const struct dispatch *dispatch);

#endif
