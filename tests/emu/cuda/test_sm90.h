/* Tensor maps and elements for the tests of Hopper's units. */
#ifndef HEED_EMU_TEST_SM90_H
#define HEED_EMU_TEST_SM90_H

#include "test.h"

static inline hd_tensor_map_t make_map(const hd_map_desc_t &desc)
{
    hd_tensor_map_t map;
    const char *complaint = emu::encode_map(&map, &desc);
    expect(!complaint, complaint ? complaint : "");
    return map;
}

static inline int bytes_of(hd_mma_type type)
{
    return type == HD_MMA_E4M3 ? 1 : 2;
}

/* A dense matrix, in boxes with rows of 128 bytes or less, swizzled. */
static inline hd_tensor_map_t matrix_map(hd_mma_type type, const void *data, int rows, int columns,
                                         int box_rows, int box_columns)
{
    hd_map_desc_t desc = {};
    desc.dtype = type == HD_MMA_E4M3 ? HEED_E4M3 : type == HD_MMA_F16 ? HEED_F16 : HEED_BF16;
    desc.data = data;
    desc.swizzle = 128;
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = i == 0 ? columns : i == 1 ? rows : 1;
        desc.strides[i] = (int64_t)columns * bytes_of(type);
        desc.box[i] = i == 0 ? box_columns : i == 1 ? box_rows : 1;
    }
    return make_map(desc);
}

static inline float element(hd_mma_type type, const void *at, int index)
{
    uint16_t half;
    if (type == HD_MMA_E4M3)
        return emu::from_e4m3(((const uint8_t *)at)[index]);
    memcpy(&half, (const char *)at + 2 * index, sizeof(half));
    return type == HD_MMA_BF16 ? emu::from_bf16(half) : emu::from_f16(half);
}

static inline unsigned char *random_elements(hd_mma_type type, int count)
{
    unsigned char *at = array<unsigned char>((size_t)(count * bytes_of(type)));
    for (int i = 0; i < count; i++) {
        float x = random_unit();
        uint32_t bits = type == HD_MMA_E4M3   ? emu::to_e4m3(x)
                        : type == HD_MMA_BF16 ? emu::to_bf16(x)
                                              : emu::to_f16(x);
        memcpy(at + i * bytes_of(type), &bits, (size_t)bytes_of(type)); /* little endian */
    }
    return at;
}

#endif
