/* What the checker, the benchmark and the demo share: random numbers, guarded buffers, and for each
 * operation how its problems are drawn, filled and judged. Uses the public API alone. */
#ifndef KIT_H
#define KIT_H

#include <heed/heed.h>

#include <stdbool.h>

/* ---- random numbers (random.c): SplitMix64, the same on every machine ------------------------ */

typedef struct kit_random {
    uint64_t state;
} kit_random_t;

uint64_t kit_random_next(kit_random_t *random);
int64_t kit_random_int(kit_random_t *random, int64_t low, int64_t high); /* both inclusive */
double kit_random_unit(kit_random_t *random);                            /* [0, 1) */
double kit_random_normal(kit_random_t *random);

/* ---- elements (element.c): f32, bf16, f16, e4m3, e5m2, i8, i32, bool from and to double (f64, i64
 * and the other formats of 8 bits only from), rounding to nearest even */

double kit_load(heed_dtype_t dtype, const void *data, int64_t index);
void kit_store(heed_dtype_t dtype, void *data, int64_t index, double value);
/* Half the distance between 1 and the next number: 2^-24, 2^-8, 2^-11, 2^-4 for f32, bf16, f16,
 * e4m3. */
double kit_unit_roundoff(heed_dtype_t dtype);

/* ---- buffers (buffers.c): one for each operand, with guard zones and poison ------------------ */

/* Host memory and its place on a device, which is itself where the device is the host. */
typedef struct kit_block {
    heed_context_t *context;
    heed_device_t device;
    void *here, *there;
    size_t bytes;
} kit_block_t;

typedef struct kit_buffers {
    void *at[16]; /* for heed_plan_execute; NULL where absent */
    int count;
    void *data[16]; /* the same on the host */
    void *base[16];
    size_t bytes[16];
    size_t whole[16]; /* with its guard zones, from base */
    void *before[16]; /* outputs: what they held before the run */
    size_t guard;
    kit_block_t blocks[16];
} kit_buffers_t;

/* Allocates every operand of the problem's descriptor, inputs and outputs poisoned (NaN patterns),
 * `guard` bytes of a known pattern on both sides. False: out of memory. Operands that the layout
 * makes views of one buffer (layout=fused) still get one buffer each. */
bool kit_buffers_new(heed_problem_t *problem, size_t guard, kit_buffers_t *buffers);
/* Name of an operand whose guard zone or whose elements between strides were written; NULL: none.
 */
const char *kit_buffers_damage(heed_problem_t *problem, const kit_buffers_t *buffers);
/* Notes what the outputs hold now, and puts that back. New buffers hold poison; fill() calls keep
 * where outputs are merged into. */
void kit_buffers_keep(const kit_buffers_t *buffers);
void kit_buffers_restore(const kit_buffers_t *buffers);
void kit_buffers_free(kit_buffers_t *buffers);

/* ---- on a device (device.c) ------------------------------------------------------------------ */

/* "cpu", "cuda", "cuda:1"; false for anything else. */
bool kit_device_parse(const char *text, heed_device_t *device);
bool kit_is_host(heed_device_t device);

/* heed_problem_desc with every operand on the device. */
heed_status_t kit_problem_desc(heed_problem_t *problem, heed_device_t device, void **desc);

/* Copies wait, and tell what went wrong on the device meanwhile. Nothing is done for the host. */
heed_status_t kit_block_new(heed_context_t *context, heed_device_t device, void *memory,
                            size_t bytes, kit_block_t *block);
heed_status_t kit_block_upload(const kit_block_t *block);
heed_status_t kit_block_download(const kit_block_t *block);
void kit_block_free(kit_block_t *block);

/* New buffers are on the host. Placing gives them a place on a device, guard zones included: then
 * `at` points there. Uploading before and downloading after a run is the caller's to do. */
heed_status_t kit_buffers_place(kit_buffers_t *buffers, heed_context_t *context,
                                heed_device_t device);
heed_status_t kit_buffers_upload(const kit_buffers_t *buffers);
heed_status_t kit_buffers_download(const kit_buffers_t *buffers);

/* A tensor's elements in row order, as doubles: from a new array (NULL: out of memory), to memory.
 */
int64_t kit_elements(const heed_tensor_t *tensor);
double *kit_gather(const heed_tensor_t *tensor, const void *data);
void kit_scatter(const heed_tensor_t *tensor, void *data, const double *values);

/* ---- one operation (op_attention.c, op_cast.c) ----------------------------------------------- */

typedef enum kit_values {
    KIT_VALUES_PLAIN,  /* unit normal */
    KIT_VALUES_EXTREME /* huge scores, zeros, denormals, repeats, NaN behind masks, empty state */
} kit_values_t;

typedef struct kit_verdict {
    double max_err;     /* largest absolute error over all outputs */
    double worst_ratio; /* largest error / bound; above 1 fails */
    char sentence[256]; /* "" or where and what: "out[0,3,1,17] = 0.5, should be 0.25 +- 1e-6" */
} kit_verdict_t;

/* Beside an implementation's features: it multiplies on tensor cores, whose operands are of one
 * type. */
#define KIT_TENSOR_CORES (UINT64_C(1) << 63)
/* It multiplies numbers as sums of two bf16: weights have 16 bits. */
#define KIT_SPLIT_WEIGHTS (UINT64_C(1) << 62)

typedef struct kit_op {
    const char *op;
    /* Draws a small random problem that stays within `features` (HEED_*_CAN_* bits). */
    void (*draw)(kit_random_t *random, uint64_t features, char *text, size_t size);
    /* Fills the inputs (and, where outputs are merged into, those). */
    void (*fill)(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                 const kit_buffers_t *buffers);
    /* Problems that every run begins with, NULL at the end. */
    const char *const *corners;
    /* The feature bits that a problem asks of an implementation, told from its descriptor. */
    uint64_t (*needs)(const void *desc);
    /* The word that makes the reference's output exact enough, "out=f32"; "" if none is needed. */
    const char *reference_words;
    /* Judges the outputs of an implementation with these features (and KIT_TENSOR_CORES,
     * KIT_SPLIT_WEIGHTS) against those of the reference on the same inputs; `reference_problem` is
     * the problem with reference_words. */
    void (*judge)(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                  heed_problem_t *reference_problem, const kit_buffers_t *reference,
                  kit_verdict_t *verdict);
} kit_op_t;

/* By name; NULL: none. Number `index`: NULL past the end. (kit.c, from impls.def) */
const kit_op_t *kit_op_find(const char *op);
const kit_op_t *kit_op_at(int index);

/* ---- checking one implementation on one problem (check.c) ------------------------------------ */

typedef enum kit_outcome { KIT_PASSED, KIT_FAILED, KIT_REFUSED } kit_outcome_t;

/* Runs `impl` on the device and the reference "cpu:standard" on the problem with inputs from
 * `seed`: poisoned outputs, guard zones, canaries behind the workspace, inputs unchanged. context
 * must allow only `impl` for the operation, reference only cpu:standard. The sentence says what
 * failed. */
kit_outcome_t kit_check(heed_context_t *context, heed_device_t device, heed_context_t *reference,
                        const char *problem, uint64_t seed, kit_values_t values,
                        kit_verdict_t *verdict);

#endif
