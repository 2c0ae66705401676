/* The state of Hopper's units: mbarriers, the copy engine (TMA), wgmma. Part of state.h.
 *
 * Each mbarrier, each warpgroup and each thread that stores by TMA has a component of its own in
 * the clocks: what its unit does in the background comes before a thread's next step only where the
 * matching wait says so. */
#ifndef HEED_EMU_STATE_SM90_H
#define HEED_EMU_STATE_SM90_H

#include "../../../src/cuda/tensor_map.h"

namespace emu
{

enum { MBARRIERS = 64, WARPGROUPS = 8, STORERS = 32, UNITS = MBARRIERS + WARPGROUPS + STORERS };

struct fiber;

struct mbarrier {
    uint64_t *at;
    uint32_t count, phase, loads; /* loads: begun so far, the time of the component */
    int64_t pending, bytes;       /* what the phase waits for; bytes may come before expected */
    epoch made;
    bool fenced; /* fit for the copy engine */
    clock_vector gathered, released;
    std::vector<fiber *> waiters;
};

struct box_copy { /* one TMA load or store on its way */
    hd_map_desc_t map;
    int at[HD_MAP_AXES];
    char *shared;
    size_t bytes;
    uint32_t mbarrier;       /* loads */
    uint32_t time;           /* stores: of the component */
    std::vector<char> image; /* stores: what was in shared memory, once that has been read */
    const void *site;
};

struct accumulator { /* 64 x columns, rows first */
    int columns;
    std::vector<float> values;
};
struct taken_registers { /* accumulators of a thread while a chain of wgmma is in flight */
    float *d;
    std::shared_ptr<accumulator> sum;
    uint64_t last; /* of the chain's products */
};
struct product { /* one wgmma of a warpgroup */
    product_shape shape;
    uint64_t a, b;
    bool from_registers, accumulate, done;
    int issued, left; /* threads that have issued it, that have waited for it */
    std::vector<uint32_t> registers;
    std::shared_ptr<accumulator> sum;
    clock_vector clock, fence; /* what all its threads were ordered after */
    const void *site;
};
struct warpgroup {
    std::deque<product> products;
    uint64_t first; /* the number of products.front() */
    std::vector<fiber *> waiters;
};

struct sm90_thread {
    int registers;
    clock_vector fence;           /* the clock at the latest proxy fence */
    std::vector<uint32_t> fences; /* the times of them all */
    int storer;                   /* its component for stores, or -1 */
    std::vector<box_copy> stores;
    std::deque<std::vector<box_copy>> store_groups;
    uint64_t issued, waited; /* products */
    std::deque<uint64_t> groups;
    std::vector<taken_registers> taken;
    std::map<const float *, int> chains; /* 8-bit products in the sum that lies there */
    bool registers_free;                 /* to ordinary instructions: a wgmma needs a fence first */
};

struct sm90_block {
    std::vector<mbarrier> mbarriers;
    std::vector<int16_t> mbarrier_at; /* of each 8 bytes of shared memory, or -1 */
    std::vector<box_copy> loads;
    warpgroup groups[WARPGROUPS];
    uint32_t store_times[STORERS];
    int storers;
    int free_registers;
    std::vector<fiber *> register_waiters;
};

} // namespace emu
#endif
