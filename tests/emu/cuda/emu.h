/* An emulator of CUDA's execution model: every thread of a block is a fiber, shared memory lies
 * between guard pages, and each access of an instrumented kernel passes a race detector. README.md
 * says what it shows and what it cannot show.
 *
 * One launch runs at a time, on the calling thread. Nothing of the C++ library is used here: an
 * instrumented kernel's copy of a template could replace the emulator's own. */
#ifndef HEED_EMU_H
#define HEED_EMU_H

#include <stddef.h>
#include <stdint.h>

namespace emu
{

/* ---- for tests and launchers ----------------------------------------------------------------- */

struct config {
    uint64_t seed = 1; /* fixes the schedule: even seeds are fair to warps, odd ones starve some */
    bool verbose = false;    /* messages also go to stderr */
    int resident = 2;        /* blocks alive at a time, in launch order, 16 at most */
    int multiprocessors = 1; /* a grid of no more blocks than this is alive as a whole */
    /* 8-bit wgmma keeps this many bits of a sum below its largest addend, as is said of Hopper
     * (13); 0: as f32. */
    int e4m3_bits = 0;
    /* How many 8-bit wgmma may add to one sum before it must start anew, for sums of few bits
     * drift; 0: any number. */
    int e4m3_chain = 0;
    int shared_limit = 232448; /* bytes of shared memory that a block may have */
};
struct result {
    int messages = 0;
    uint64_t switches = 0;
    uint64_t tensor_macs = 0; /* multiply-adds of mma.sync and wgmma */
    uint64_t load_bytes = 0;  /* brought by cp.async and TMA, with what TMA fills up */
    uint64_t store_bytes = 0; /* the boxes of TMA stores */
    bool ok() const
    {
        return messages == 0;
    }
};

/* Calls thread(closure) in every thread of every block, with the configuration set below. */
result launch(dim3 grid, dim3 block, size_t shared_bytes, void (*thread)(void *), void *closure);
void set_config(const config &config);
int shared_limit();
/* Messages of the latest launch (NULL past the end), and whether one contains the text. */
const char *message(int index);
bool said(const char *text);
/* Whether a launch failed since this was last asked. */
bool take_failed();

/* Global memory whose end touches an unmapped page (up to alignment to 16 bytes). Never freed. */
void *global(size_t bytes);
/* Whether the kernel was compiled with the hooks of -fsanitize=thread. */
bool is_instrumented();

/* ---- for the twins of instructions; all may switch to another fiber -------------------------- */

struct place {
    dim3 thread, block, block_dim, grid_dim;
};
const place &here(); /* of the running fiber */

void *shared();
int lane();
unsigned lanes_of_warp(); /* the lanes that exist: 32 but in the last warp */
void fault(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void barrier(int id, int threads, bool wait);
void sync_warp(unsigned mask);
/* All lanes of mask give `bytes` each and get all[32]; orders no memory. */
void exchange(unsigned mask, const void *mine, size_t bytes, void *all);
void relax(); /* inside a loop that polls memory */
void fence_memory();
void atomic(void *at, size_t bytes);
void copy(void *to, const void *from, size_t bytes); /* unseen by the detector */

void cp_async(void *to, const void *from, int bytes, int valid);
void cp_async_commit();
void cp_async_wait(int groups);

/* Four 8x8 matrices of 16-bit elements, a row's address from each lane; and m16n8k16. */
void load_matrices(uint32_t *registers, const void *row, bool transposed);
void store_matrices(void *row, const uint32_t *registers);
void multiply_matrices(float *d, const uint32_t *a, const uint32_t *b, bool bf16);

/* ---- twins for Hopper ------------------------------------------------------------------------ */

void mbarrier_init(uint64_t *at, uint32_t count);
void mbarrier_arrive(uint64_t *at, uint32_t bytes);
void mbarrier_wait(uint64_t *at, uint32_t parity);
void fence_mbarrier_init();
void fence_async();
bool elect();
void set_registers(int registers, bool up);

/* Fills a hd_tensor_map_t from a hd_map_desc_t; NULL, or why a driver would not. */
const char *encode_map(void *map, const void *desc);
void check_map(const void *map);
void tma_load(void *to, const void *map, uint64_t *bar, const int *at);
void tma_store(const void *map, const void *from, const int *at);
void tma_commit();
void tma_wait(int groups, bool read_only);

struct product_shape { /* 64 x columns, of 8- or 16-bit elements */
    int columns, e4m3, f16, b_is_mn_major;
};
void wgmma_fence();
/* a: registers, or NULL and descriptor_a. */
void wgmma(float *d, product_shape shape, const uint32_t *a, uint64_t descriptor_a,
           uint64_t descriptor_b, bool accumulate);
void wgmma_commit();
void wgmma_wait(int groups);

/* Nearest even, saturated at 448; NaN is 0x7f. */
uint32_t to_e4m3(float value);
float from_e4m3(uint32_t bits);

/* 16-bit floats, rounded to nearest even; a NaN becomes 0x7fff, as on a device. */
uint32_t to_bf16(float value);
uint32_t to_f16(float value);
float from_bf16(uint32_t bits);
float from_f16(uint32_t bits);

} // namespace emu
#endif
