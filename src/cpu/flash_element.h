/* The inner loops of flash_tile.h where a multiply-add takes one factor from any lane of a
 * register: four cells of a key are one load, and nothing is broadcast. An instruction set that has
 * this sets FLASH_BY_ELEMENT and defines flash_dot_lane(sum, a, b, lane), sum += a[lane] b, lane a
 * constant. */
#ifndef HD_FLASH_ELEMENT_H
#define HD_FLASH_ELEMENT_H

/* All vectors of sum[i] += a[lane] b. */
#define FLASH_ADD(i, a, lane, b)                                    \
    do {                                                            \
        HD_UNROLL                                                   \
        for (int r = 0; r < vectors; r++) {                         \
            sum[i][r] = flash_dot_lane(sum[i][r], a, (b)[r], lane); \
        }                                                           \
    } while (0)

HD_INLINE void element_vectors(const int vectors, const char *from, vec_t *b)
{
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        b[r] = vec_load(from + r * VEC_LANES * 4);
    }
}

/* Adds the steps of the first product that come in fours, and returns how many that were. */
HD_INLINE int qk_elements(const int keys, const int vectors, const char *k, int64_t k_row,
                          const char *q, int steps, vec_t (*sum)[FLASH_TILE])
{
    int step = 0;
    for (; step + 4 <= steps; step += 4) {
        vec_t a[FLASH_NARROW], b[FLASH_TILE];
        HD_UNROLL
        for (int i = 0; i < keys; i++) {
            a[i] = vec_load(k + i * k_row + step * 4);
        }
#define LANE(lane)                                                \
    element_vectors(vectors, q + (step + (lane)) * LANES * 4, b); \
    HD_UNROLL                                                     \
    for (int i = 0; i < keys; i++) {                              \
        FLASH_ADD(i, a[i], lane, b);                              \
    }
        LANE(0)
        LANE(1)
        LANE(2)
        LANE(3)
#undef LANE
    }
    return step;
}

/* The second product, where the columns come in fours: returns how many steps were done, all or
 * none. */
HD_INLINE int pv_elements(const int columns, const int vectors, const char *v, int64_t v_row,
                          const char *p, int steps, vec_t (*sum)[FLASH_TILE])
{
    if (columns % 4)
        return 0;
    for (int step = 0; step < steps; step++) {
        vec_t b[FLASH_TILE];
        element_vectors(vectors, p + step * LANES * 4, b);
        HD_UNROLL
        for (int i = 0; i < columns; i += 4) {
            vec_t a = vec_load(v + step * v_row + i * 4);
            FLASH_ADD(i, a, 0, b);
            FLASH_ADD(i + 1, a, 1, b);
            FLASH_ADD(i + 2, a, 2, b);
            FLASH_ADD(i + 3, a, 3, b);
        }
    }
    return steps;
}

#undef FLASH_ADD
#endif
