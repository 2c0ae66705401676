/* cp.async: the destination is undefined from the moment of issue, and the bytes arrive as late as
 * the rules allow, when the thread that asked for them waits for their group. */
#include "state.h"

namespace emu
{

void cp_async(void *to, const void *from, int bytes, int valid)
{
    const void *site = EMU_SITE;
    maybe_yield();
    if (bytes != 4 && bytes != 8 && bytes != 16)
        fatal(site, "cp.async: %d bytes; it takes 4, 8 or 16", bytes);
    if (valid < 0 || valid > bytes)
        fatal(site, "cp.async: %d of %d bytes to be read", valid, bytes);
    if (((uintptr_t)to | (uintptr_t)from) % (uintptr_t)bytes)
        fatal(site, "cp.async: %p or %p is not aligned to %d bytes", to, from, bytes);
    shared_offset(to, (size_t)bytes, site);
    saw_write(to, (size_t)bytes, site);
    memset(to, 0xff, (size_t)bytes);
    m.cur->copies.push_back({(char *)to, (const char *)from, bytes, valid, site});
}

void cp_async_commit()
{
    m.cur->copy_groups.push_back(std::move(m.cur->copies));
    m.cur->copies.clear();
}

/* A second write as far as the detector is concerned: whoever touched the place since is late. */
static void arrive(const copy_order &order)
{
    saw_write(order.to, (size_t)order.bytes, order.site);
    saw_read(order.from, (size_t)order.valid, order.site);
    memset(order.to, 0, (size_t)order.bytes);
    memcpy(order.to, order.from, (size_t)order.valid);
    m.res.load_bytes += (uint64_t)order.valid;
}

void cp_async_wait(int groups)
{
    maybe_yield();
    std::deque<std::vector<copy_order>> &waiting = m.cur->copy_groups;
    for (; (int)waiting.size() > groups; waiting.pop_front())
        for (const copy_order &order : waiting.front())
            arrive(order);
}

void cp_async_end(fiber *f)
{
    bool open = !f->copies.empty();
    for (const std::vector<copy_order> &group : f->copy_groups)
        open = open || !group.empty();
    if (open)
        report(NULL, "cp.async: the thread ended with copies that it never waited for");
}

} // namespace emu
