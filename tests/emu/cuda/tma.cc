/* The copy engine: tensor maps, boxes loaded and stored, groups of stores.
 *
 * A load's destination is undefined from its issue on. The bytes arrive, in any order of loads,
 * when no thread can run, and rarely before. A store reads shared memory when its thread waits for
 * its group, and writes global memory when the thread waits for that or ends. */
#include "state.h"

#include <algorithm>

namespace emu
{

/* ---- tensor maps ----------------------------------------------------------------------------- */

struct map_image {
    hd_map_desc_t desc;
    uint64_t mark;
};
constexpr uint64_t MAP = 0x70616d726f736e74;
static_assert(sizeof(map_image) <= sizeof(hd_tensor_map_t), "fits");

static int element_bytes(heed_dtype_t dtype)
{
    return dtype == HEED_F32 ? 4 : dtype == HEED_BF16 || dtype == HEED_F16 ? 2 : 1;
}

static const char *complain_of_axis(const hd_map_desc_t &desc, int axis)
{
    if (desc.sizes[axis] < 1 || desc.sizes[axis] > (int64_t)1 << 32)
        return "a size is not in 1 to 2^32";
    if (desc.box[axis] < 1 || desc.box[axis] > 256)
        return "an edge of the box is not in 1 to 256";
    if (axis && (desc.strides[axis] < 0 || desc.strides[axis] >= (int64_t)1 << 40))
        return "a stride is not in 0 to 2^40";
    if (axis && desc.strides[axis] % 16)
        return "a stride is no multiple of 16";
    return NULL;
}

const char *encode_map(void *map, const void *at)
{
    const hd_map_desc_t &desc = *(const hd_map_desc_t *)at;
    int row = desc.box[0] * element_bytes(desc.dtype);
    for (int i = 0; i < HD_MAP_AXES; i++)
        if (const char *complaint = complain_of_axis(desc, i))
            return complaint;
    if ((uintptr_t)desc.data % 16 || !desc.data)
        return "the data is not aligned to 16 bytes";
    if (row % 16)
        return "the box's rows are no multiple of 16 bytes";
    if (desc.swizzle != 0 && desc.swizzle != 128)
        return "the swizzle is neither 0 nor 128";
    if (desc.swizzle && row > desc.swizzle)
        return "the box's rows are longer than the swizzle";
    map_image image = {desc, MAP};
    memset(map, 0, sizeof(hd_tensor_map_t));
    memcpy(map, &image, sizeof(image));
    return NULL;
}

static const hd_map_desc_t &read_map(const void *map, const void *site)
{
    const map_image &image = *(const map_image *)map;
    if ((uintptr_t)map % 64 || is_near_shared(map))
        fatal(site, "TMA: the tensor map at %p is not aligned to 64 bytes of global memory", map);
    if (image.mark != MAP)
        fatal(site, "TMA: the tensor map at %p was never made", map);
    return image.desc;
}

void check_map(const void *map)
{
    read_map(map, EMU_SITE);
}

/* ---- boxes ----------------------------------------------------------------------------------- */

static size_t swizzled(size_t offset, int swizzle)
{
    return swizzle ? offset ^ (offset >> 7 & 7) << 4 : offset;
}

/* visit(place in shared memory, global address, first, end) for each 16 bytes of the box, of which
 * [first, end) lie in the tensor. */
template <class Visit> static void visit_box(const box_copy &copy, Visit visit)
{
    const hd_map_desc_t &map = copy.map;
    int bytes = element_bytes(map.dtype), row = map.box[0] * bytes;
    size_t base = (size_t)(copy.shared - m.now->memory), piece = base;
    int64_t lines = (int64_t)map.box[1] * map.box[2] * map.box[3];
    for (int64_t line = 0; line < lines; line++) {
        int64_t rest = line, global = 0;
        bool inside = true;
        for (int i = 1; i < HD_MAP_AXES; rest /= map.box[i], i++) {
            int64_t at = copy.at[i] + rest % map.box[i];
            inside = inside && at >= 0 && at < map.sizes[i];
            global += at * map.strides[i];
        }
        for (int x = 0; x < row; x += 16, piece += 16) {
            int64_t start = (int64_t)copy.at[0] * bytes + x;
            int64_t first = std::max<int64_t>(0, -start);
            int64_t end = std::min<int64_t>(16, map.sizes[0] * bytes - start);
            if (!inside || first >= end)
                first = end = 0;
            visit(m.now->memory + swizzled(piece, map.swizzle),
                  (char *)((uintptr_t)map.data + (uintptr_t)(global + start)), (size_t)first,
                  (size_t)end);
        }
    }
}

static box_copy make_copy(const void *map, const void *shared, const int *at, const void *site)
{
    box_copy copy = {};
    copy.map = read_map(map, site);
    copy.bytes = (size_t)element_bytes(copy.map.dtype);
    for (int i = 0; i < HD_MAP_AXES; i++) {
        copy.at[i] = at[i];
        copy.bytes *= (size_t)copy.map.box[i];
    }
    copy.shared = (char *)shared;
    copy.site = site;
    if (shared_offset(shared, copy.bytes, site) % 128)
        fatal(site, "TMA: shared+%zd is not aligned to 128 bytes", (char *)shared - m.now->memory);
    return copy;
}

/* ---- loads ----------------------------------------------------------------------------------- */

void tma_load(void *to, const void *map, uint64_t *bar, const int *at)
{
    const void *site = EMU_SITE;
    maybe_yield();
    mbarrier &barrier = find_mbarrier(bar, true, site);
    box_copy copy = make_copy(map, to, at, site);
    copy.mbarrier = (uint32_t)(&barrier - m.now->sm90.mbarriers.data());
    visit_box(copy, [&](char *, const char *global, size_t first, size_t end) {
        if (first == end)
            return;
        saw_read(global + first, end - first, site);
        (void)*(const volatile char *)(global + first); /* faults here, with a thread to name */
        (void)*(const volatile char *)(global + end - 1);
    });
    epoch now = make_epoch(component_of_mbarrier(copy.mbarrier), ++barrier.loads);
    saw_unit(to, copy.bytes, true, {"TMA load", now, &m.cur->clock, &m.cur->sm90.fence, site});
    memset(to, 0xff, copy.bytes);
    m.now->sm90.loads.push_back(copy);
}

void tma_land(block *b)
{
    std::vector<box_copy> &loads = b->sm90.loads;
    size_t index = draw((uint32_t)loads.size());
    box_copy copy = loads[index];
    loads[index] = loads.back();
    loads.pop_back();
    visit_box(copy, [&](char *shared, const char *global, size_t first, size_t end) {
        memset(shared, 0, 16);
        memcpy(shared + first, global + first, end - first);
    });
    mbarrier &barrier = b->sm90.mbarriers[copy.mbarrier];
    /* Loads of one mbarrier share a component: exact as long as they share its phases. */
    barrier.gathered[component_of_mbarrier(copy.mbarrier)] = barrier.loads;
    barrier.bytes -= (int64_t)copy.bytes;
    m.res.load_bytes += copy.bytes;
    m.spins = 0;
    try_complete(barrier);
}

/* ---- stores ---------------------------------------------------------------------------------- */

/* The read is noted at once: an overwrite by anyone who is not ordered after the wait is a race. */
void tma_store(const void *map, const void *from, const int *at)
{
    const void *site = EMU_SITE;
    maybe_yield();
    box_copy copy = make_copy(map, from, at, site);
    sm90_block &sm90 = m.now->sm90;
    int &storer = m.cur->sm90.storer;
    if (storer < 0)
        storer = sm90.storers++ % STORERS;
    copy.time = ++sm90.store_times[storer];
    epoch now = make_epoch(component_of_storer(storer), copy.time);
    saw_unit(from, copy.bytes, false, {"TMA store", now, &m.cur->clock, &m.cur->sm90.fence, site});
    m.cur->sm90.stores.push_back(copy);
}

void tma_commit()
{
    maybe_yield();
    m.cur->sm90.store_groups.push_back(std::move(m.cur->sm90.stores));
    m.cur->sm90.stores.clear();
}

/* From here on the shared memory is free again. */
static void read_box(box_copy &copy)
{
    if (!copy.image.empty())
        return;
    visit_box(copy, [&](const char *shared, const char *, size_t, size_t) {
        copy.image.insert(copy.image.end(), shared, shared + 16);
    });
    uint32_t &seen = m.cur->clock[component_of_storer(m.cur->sm90.storer)];
    seen = std::max(seen, copy.time);
}

static void write_box(box_copy &copy)
{
    read_box(copy);
    const char *from = copy.image.data();
    visit_box(copy, [&](const char *, char *global, size_t first, size_t end) {
        if (first < end) {
            saw_write(global + first, end - first, copy.site);
            memcpy(global + first, from + first, end - first);
        }
        from += 16;
    });
    m.res.store_bytes += copy.bytes;
}

void tma_wait(int groups, bool read_only)
{
    maybe_yield();
    std::deque<std::vector<box_copy>> &waiting = m.cur->sm90.store_groups;
    for (size_t i = 0; i + (size_t)groups < waiting.size(); i++)
        for (box_copy &copy : waiting[i])
            read_box(copy);
    for (; !read_only && waiting.size() > (size_t)groups; waiting.pop_front())
        for (box_copy &copy : waiting.front())
            write_box(copy);
}

/* What was read from shared memory may reach global memory after the thread's end. */
void tma_end(fiber *f)
{
    if (!f->sm90.stores.empty())
        report(f->sm90.stores[0].site, "TMA store: the thread ended without a commit");
    for (std::vector<box_copy> &group : f->sm90.store_groups)
        for (box_copy &copy : group) {
            if (copy.image.empty())
                report(copy.site, "TMA store: the thread ended without waiting for its reads");
            else
                write_box(copy);
        }
}

} // namespace emu
