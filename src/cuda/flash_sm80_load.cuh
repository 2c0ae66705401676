/* How cuda:flash_sm80 brings rows of Q, K and V into shared memory. */
#ifndef HD_FLASH_SM80_LOAD_CUH
#define HD_FLASH_SM80_LOAD_CUH

#include "flash_sm80_tile.cuh"

/* Which 16-byte pieces a thread copies: ACROSS threads take a row, each every ACROSS-th piece; the
 * next rows are ROWS_APART further on. */
template <class C, int COLUMNS> struct copy_shape {
    static constexpr int ACROSS = COLUMNS % 64 ? 4 : 8, ROWS_APART = C::THREADS / ACROSS;
    static constexpr int PIECES = COLUMNS / 8, STRIDE = 2 * COLUMNS + PADDING;
};

template <class C, int COLUMNS> static __device__ inline int first_piece()
{
    return (int)threadIdx.x % copy_shape<C, COLUMNS>::ACROSS;
}

/* Starts to copy `rows` of ROWS rows, `pieces` of each; zeros elsewhere. `from` is the
 * thread's first piece of row 0; the first row is `first`. */
template <class C, int COLUMNS, int ROWS>
static __device__ __forceinline__ void copy_rows(unsigned char *to, const char *from, int first,
                                                 int row_bytes, int rows, int pieces)
{
    typedef copy_shape<C, COLUMNS> shape;
    int row = (int)threadIdx.x / shape::ACROSS, piece = (int)threadIdx.x % shape::ACROSS;
    from += (int64_t)(first + row) * row_bytes;
    to += row * shape::STRIDE + piece * 16;
#pragma unroll
    for (int r = 0; r < ROWS; r += shape::ROWS_APART) {
#pragma unroll
        for (int c = 0; c < shape::PIECES; c += shape::ACROSS) {
            bool valid = (ROWS == rows || r < rows - row) && c < pieces - piece;
            hd_cp_async_16(to + r * shape::STRIDE + c * 16, from + c * 16, valid ? 16 : 0);
        }
        from += (int64_t)shape::ROWS_APART * row_bytes;
    }
}

/* The same, element by element, for rows of any stride and alignment. */
template <class C, int COLUMNS, int ROWS>
static __device__ __forceinline__ void gather_rows(unsigned char *to, const char *from,
                                                   int64_t row_bytes, int64_t elem, int rows,
                                                   int columns)
{
    typedef copy_shape<C, COLUMNS> shape;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < ROWS * shape::PIECES; i += C::THREADS) {
        int row = i / shape::PIECES, first = i % shape::PIECES * 8;
        const char *at = from + row * row_bytes + first * elem;
        uint16_t *place = (uint16_t *)(to + row * shape::STRIDE + first * 2);
#pragma unroll 1
        for (int e = 0; e < 8; e++)
            place[e] = row < rows && first + e < columns ? *(const uint16_t *)(at + e * elem) : 0;
    }
}

/* Flips the sign of the queries, which are there for all threads. */
template <class C> static __device__ inline void negate_queries(unsigned char *memory)
{
    typedef copy_shape<C, C::D> shape;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < C::ROWS * shape::PIECES; i += C::THREADS) {
        int row = i / shape::PIECES, piece = i % shape::PIECES;
        uint4 *at = (uint4 *)(memory + row * shape::STRIDE + piece * 16);
        uint4 x = *at;
        *at = {x.x ^ 0x80008000, x.y ^ 0x80008000, x.z ^ 0x80008000, x.w ^ 0x80008000};
    }
}

/* All of Q. They are there for this thread alone; a barrier has to follow. */
template <class C>
static __device__ inline void load_queries(const sm80_params_t *p, const volatile cold_t *cold,
                                           unsigned char *memory)
{
    task_t where = get_task(cold), *task = &where;
    const hd_view_t *q = &p->a.q;
    const char *from = hd_view_row(q, task->batch, task->first, task->head);
    if (p->gather)
        gather_rows<C, C::D, C::ROWS>(memory, from, q->row, q->elem, task->rows, p->a.d);
    else
        copy_rows<C, C::D, C::ROWS>(memory, from + 16 * first_piece<C, C::D>(), 0, p->q_row,
                                    task->rows, p->k_pieces);
    hd_cp_async_commit();
    if (!p->negate)
        return;
    hd_cp_async_wait<0>();
    __syncthreads();
    negate_queries<C>(memory);
}

/* Puts the addresses of key 0 and its value where all find them after the next barrier. */
template <class C>
static __device__ inline void put_sources(const sm80_params_t *p, const volatile cold_t *cold,
                                          unsigned char *memory)
{
    int64_t batch = cold->task.batch, head = cold->task.key_head;
    int piece = (int)threadIdx.x;
    if (piece < FIRST_PIECES)
        *sources_of<C>(memory, piece) = {hd_view_row(&p->a.k, batch, 0, head) + 16 * piece,
                                         hd_view_row(&p->a.v, batch, 0, head) + 16 * piece};
}

/* Starts to bring rows of K; nothing where all is gathered, and without rows. */
template <class C>
static __device__ __forceinline__ void start_keys(const sm80_params_t *p, int key, int count,
                                                  unsigned char *memory)
{
    if (!p->gather && count > 0)
        copy_rows<C, C::D, KEYS>(keys_of<C>(memory),
                                 sources_of<C>(memory, first_piece<C, C::D>())->k, key, p->k_row,
                                 count, p->k_pieces);
    hd_cp_async_commit();
}

template <class C>
static __device__ __forceinline__ void start_values(const sm80_params_t *p, int key, int count,
                                                    unsigned char *memory)
{
    copy_rows<C, C::DV, KEYS>(values_of<C>(memory),
                              sources_of<C>(memory, first_piece<C, C::DV>())->v, key, p->v_row,
                              count, p->v_pieces);
    hd_cp_async_commit();
}

/* K and V of a block, at once. A barrier has to follow. */
template <class C>
static __device__ __attribute__((noinline)) void gather_block(const sm80_params_t *p,
                                                              const volatile cold_t *cold,
                                                              unsigned char *memory)
{
    int key = cold->now.key, count = cold->now.count;
    int64_t batch = cold->task.batch, head = cold->task.key_head;
    const hd_view_t *k = &p->a.k, *v = &p->a.v;
    /* All are done with the former ones. */
    __syncthreads();
    gather_rows<C, C::D, KEYS>(keys_of<C>(memory), hd_view_row(k, batch, key, head), k->row,
                               k->elem, count, p->a.d);
    gather_rows<C, C::DV, KEYS>(values_of<C>(memory), hd_view_row(v, batch, key, head), v->row,
                                v->elem, count, p->a.dv);
}

#endif
