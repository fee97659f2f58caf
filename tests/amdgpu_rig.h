/*
 * amdgpu_rig.h: the machine of host/rig.h for tests of the driver.
 */
#ifndef NOHOST_TESTS_AMDGPU_RIG_H
#define NOHOST_TESTS_AMDGPU_RIG_H

#include "tests/host/rig.h"

/* A kernel: to[group * 32 + item]++; kernarg {to}; two user SGPRs, group id x. */
#define RIG_INCREMENT_WORDS 17u
extern const u32 rig_increment_code[RIG_INCREMENT_WORDS];

/* Firmware files of build/firmware; test_skip when there are none. */
void rig_firmware(struct rig *rig);

#endif
