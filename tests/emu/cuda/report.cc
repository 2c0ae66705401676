/* Messages: what happened, at which line of the kernel, in which thread. */
#include "state.h"

#include <elf.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

extern "C" const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));

namespace emu
{

enum { MESSAGES_MOST = 20 };

/* ---- places in the source -------------------------------------------------------------------- */

uint32_t site_number(const void *site)
{
    return (uint32_t)((uintptr_t)site - (uintptr_t)&__ehdr_start);
}

/* The address as addr2line wants it, of the call and not of the instruction behind it. */
static uintptr_t file_address(uint32_t number)
{
    uintptr_t base = __ehdr_start.e_type == ET_DYN ? 0 : (uintptr_t)&__ehdr_start;
    return base + number - 1;
}

/* The first frame that is not one of the twins. */
static std::string ask_addr2line(uint32_t number)
{
    char exe[512] = "", command[640], line[512];
    std::string found, any;
    if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
        return "?";
    snprintf(command, sizeof(command), "addr2line -i -s -e '%s' %#zx 2>/dev/null", exe,
             (size_t)file_address(number));
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return "?";
    while (fgets(line, sizeof(line), pipe)) {
        line[strcspn(line, " \n")] = 0;
        any = line;
        if (found.empty() && !strstr(line, "_emu.h:") && !strstr(line, "ptx.cuh:") &&
            line[0] != '?')
            found = line;
    }
    pclose(pipe);
    return found.empty() ? any : found;
}

std::string site_text(uint32_t number)
{
    static std::map<uint32_t, std::string> known;
    std::string &text = known[number];
    if (text.empty())
        text = ask_addr2line(number);
    return text;
}

std::string epoch_text(epoch e)
{
    int component = (int)(e >> TIME_BITS), unit = component - m.now->threads;
    if (unit < 0)
        return "thread " + std::to_string(component) + " (warp " + std::to_string(component / 32) +
               ")";
    if (unit < MBARRIERS)
        return "a TMA load on mbarrier shared+" +
               std::to_string((char *)m.now->sm90.mbarriers[(size_t)unit].at - m.now->memory);
    if (unit < MBARRIERS + WARPGROUPS)
        return "a wgmma of warpgroup " + std::to_string(unit - MBARRIERS);
    return "a TMA store";
}

/* ---- messages -------------------------------------------------------------------------------- */

static void add(const void *site, const char *text)
{
    static std::vector<std::pair<const void *, std::string>> seen;
    std::string kind(text, strcspn(text, ":")), message = text;
    if (m.messages.empty())
        seen.clear();
    for (auto &earlier : seen)
        if (earlier.first == site && earlier.second == kind)
            return;
    seen.push_back({site, kind});
    if (m.messages.size() >= MESSAGES_MOST)
        return;
    if (site)
        message += " at " + site_text(site_number(site));
    if (m.cur) {
        char who[120];
        dim3 at = m.cur->at.block;
        snprintf(who, sizeof(who), " [block %u,%u,%u thread %d]", at.x, at.y, at.z, m.cur->id);
        message += who;
    }
    m.messages.push_back(message);
    if (m.cfg.verbose)
        fprintf(stderr, "emulator: %s\n", message.c_str());
}

#define EMU_FORMAT(text)                              \
    char text[1000];                                  \
    va_list arguments;                                \
    va_start(arguments, format);                      \
    vsnprintf(text, sizeof(text), format, arguments); \
    va_end(arguments)

void report(const void *site, const char *format, ...)
{
    EMU_FORMAT(text);
    add(site, text);
}

void fatal(const void *site, const char *format, ...)
{
    {
        EMU_FORMAT(text);
        add(site, text);
    }
    abandon();
}

void fault(const char *format, ...)
{
    const void *site = EMU_SITE;
    {
        EMU_FORMAT(text);
        add(site, text);
    }
    abandon();
}

/* No thread of the launch runs again. */
void abandon()
{
    m.abandoned = true;
    for (;;)
        suspend();
}

/* ---- deadlock -------------------------------------------------------------------------------- */

static bool waits_alike(const fiber &a, const fiber &b)
{
    return a.done == b.done && !strcmp(a.waits_for, b.waits_for) &&
           (!*a.waits_for || a.detail == b.detail);
}

static std::string wait_text(const fiber &f)
{
    char text[200];
    if (!strcmp(f.waits_for, "barrier")) {
        const meeting_point &point = m.now->barriers[f.detail];
        snprintf(text, sizeof(text), "barrier %d: %d of %d threads are there", (int)f.detail,
                 point.arrived, point.expected);
    } else if (!strcmp(f.waits_for, "mbarrier")) {
        const mbarrier &barrier = m.now->sm90.mbarriers[(size_t)(f.detail >> 1)];
        snprintf(text, sizeof(text),
                 "mbarrier shared+%zd, parity %d: in phase %u, %lld of %u arrivals and %lld bytes "
                 "missing",
                 (char *)barrier.at - m.now->memory, (int)(f.detail & 1), barrier.phase,
                 (long long)barrier.pending, barrier.count, (long long)barrier.bytes);
    } else {
        snprintf(text, sizeof(text), "%s %08x", f.waits_for, (unsigned)f.detail);
    }
    return text;
}

/* One line for each range of threads that wait for the same. */
void report_deadlock()
{
    std::string text = "deadlock: no thread can run";
    std::vector<fiber> &fibers = m.now->fibers;
    for (size_t i = 0, end; i < fibers.size(); i = end) {
        for (end = i + 1; end < fibers.size() && waits_alike(fibers[i], fibers[end]);)
            end++;
        char range[80];
        snprintf(range, sizeof(range), "\n  threads %zu-%zu ", i, end - 1);
        text += range;
        text += fibers[i].done ? "have ended" : "wait for " + wait_text(fibers[i]);
    }
    report(NULL, "%s", text.c_str());
}

} // namespace emu
