/* What is particular to E4M3: tile sizes, and where things lie in shared memory. */
#ifndef HD_FLASH_SM90_FP8_CONFIG_CUH
#define HD_FLASH_SM90_FP8_CONFIG_CUH

#include "flash_sm90_config.cuh"

namespace flash_sm90
{

/* As config. FLUSH: tiles of keys after which the tensor cores' sums are added to those in f32.
 * PIECE: columns of the output that they hold at a time, DIM or a part of it; with a part, FLUSH is
 * 1, for each piece starts anew. */
template <int DIM_, int KEYS_, int GROUPS_, int PIECE_, int FLUSH_, int POLY_, bool PING_,
          bool TILES_>
struct fp8_config {
    static constexpr hd_mma_type TYPE = HD_MMA_E4M3;
    static constexpr int DIM = DIM_, KEYS = KEYS_, GROUPS = GROUPS_, POLY = POLY_;
    static constexpr int PIECE = PIECE_, PIECES = DIM / PIECE, FLUSH = FLUSH_;
    static constexpr mode_t MODE = TILES_ ? EXACT : BOUND;
    static constexpr bool PING = PING_ && GROUPS_ > 1, TILES = TILES_;
    static constexpr int QUERIES = ROWS * GROUPS, WARPS = 4 * GROUPS;
    static constexpr int THREADS = 128 * (GROUPS + 1);
    static constexpr int SLAB_COLUMNS = 128, SLABS = (DIM + SLAB_COLUMNS - 1) / SLAB_COLUMNS;
    static constexpr int KEY_SLABS = (KEYS + SLAB_COLUMNS - 1) / SLAB_COLUMNS;
    static constexpr int STEP = 32;
    /* The largest weight of a row is 2^7 to 2^8, and may grow to E4M3's 448 before M moves. */
    static constexpr int TOP = 8;
    static constexpr float SLACK = 0.8f;
    /* The three warps that transpose V. */
    static constexpr int TURNERS = 3, V_READERS = TURNERS;
    static constexpr int JOINING = 32 * (WARPS + 1 + TURNERS);
    static constexpr int LOAD_REGISTERS = GROUPS == 3 ? 32 : GROUPS == 2 ? 24 : 56;
    static constexpr int MATH_REGISTERS = GROUPS == 3 ? 160 : GROUPS == 2 ? 240 : 256;

    /* Shared memory: Q of each warpgroup, rings of K, of V as it is, and of V transposed. The
     * output leaves from registers. */
    static constexpr int Q_BYTES = SLABS * QUERY_SLAB, K_BYTES = SLABS * KEYS * SLAB_BYTES;
    static constexpr int T_SLAB = DIM * SLAB_BYTES, T_BYTES = KEY_SLABS * T_SLAB;
    static constexpr int K_AT = GROUPS * Q_BYTES, V_AT = K_AT + STAGES * K_BYTES;
    static constexpr int T_AT = V_AT + STAGES * K_BYTES;
    static constexpr bool STAGED = false, OWN_OUT = true;
    static constexpr int OUT_AT = 0; /* not used */
    static constexpr int BARRIERS_AT = T_AT + STAGES * T_BYTES;
    static constexpr int REDO_AT = BARRIERS_AT + 128;
    static constexpr int SHARED = REDO_AT + WARPS * REDO_WORDS * 4;

    static_assert(DIM % PIECE == 0 && (PIECES == 1 || FLUSH == 1), "pieces start anew");
    static_assert(DIM % 32 == 0 && KEYS % STEP == 0, "whole products");
    static_assert(SHARED <= 227 * 1024, "shared memory");
};

/* V's ring of barriers is between the loads and the transposition; these are between that and the
 * products. */
typedef struct fp8_barriers {
    barriers_t base;
    uint64_t t_full[STAGES], t_free[STAGES];
} fp8_barriers_t;
static_assert(sizeof(fp8_barriers_t) <= 128, "the place of the barriers");

} // namespace flash_sm90

#endif
