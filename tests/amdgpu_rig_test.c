/*
 * amdgpu_rig_test.c: what the driver's tests share beside the machine of host/rig.c. No test by
 * itself, but a part of the runner alone.
 */
#include "tests/amdgpu_rig.h"

#include "tests/test.h"

const u32 rig_increment_code[RIG_INCREMENT_WORDS] = {
    0xf4040100, 0xf8000000, /* s_load_b64 s[4:5], s[0:1], 0 */
    0x360000ff, 0x000003ff, /* v_and_b32 v0, 0x3ff, v0 */
    0x84078702,             /* s_lshl_b32 s7, s2, 7 */
    0xd6460001, 0x001d0500, /* v_lshl_add_u32 v1, v0, 2, s7 */
    0xbf89fc07,             /* s_waitcnt lgkmcnt(0) */
    0xdc520000, 0x02040001, /* global_load_b32 v2, v1, s[4:5] */
    0xbf8903f7,             /* s_waitcnt vmcnt(0) */
    0x4a040481,             /* v_add_nc_u32 v2, 1, v2 */
    0xdc6a0000, 0x00040201, /* global_store_b32 v1, v2, s[4:5] */
    0xbfb00000,             /* s_endpgm */
};

void rig_firmware(struct rig *rig)
{
    if (!rig_read_firmware(rig))
        test_skip("no firmware in build/firmware");
}
