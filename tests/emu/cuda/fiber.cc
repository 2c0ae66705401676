/* Switching between fibers: seven registers on x86-64, ucontext elsewhere. */
#include "state.h"

#if defined(__x86_64__)

/* emu_switch(&save, load): pushes what a call must keep, changes stacks, pops. */
extern "C" void emu_switch(void **save, void *load);
asm(".text\n"
    ".globl emu_switch\n"
    ".type emu_switch, @function\n"
    "emu_switch:\n"
    "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
    "ret\n"
    ".size emu_switch, .-emu_switch\n");

namespace emu
{

void fiber_prepare(fiber *f, char *stack, void (*entry)())
{
    /* As if entry had been called: the stack is 8 off alignment to 16. */
    void **top = (void **)(stack + STACK) - 2;
    top[0] = (void *)entry;
    top[1] = NULL;
    f->stack_pointer = top - 6;
    memset(f->stack_pointer, 0, 6 * sizeof(void *));
}

void fiber_enter(fiber *f)
{
    emu_switch(&m.scheduler, f->stack_pointer);
}

void fiber_leave(fiber *f)
{
    emu_switch(&f->stack_pointer, m.scheduler);
}

} // namespace emu

#else

#include <ucontext.h>

namespace emu
{

static ucontext_t scheduler;

void fiber_prepare(fiber *f, char *stack, void (*entry)())
{
    ucontext_t *context = (ucontext_t *)stack; /* the far end, which no kernel reaches */
    getcontext(context);
    context->uc_stack.ss_sp = stack + sizeof(*context);
    context->uc_stack.ss_size = STACK - sizeof(*context);
    makecontext(context, entry, 0);
    f->stack_pointer = context;
}

void fiber_enter(fiber *f)
{
    swapcontext(&scheduler, (ucontext_t *)f->stack_pointer);
}

void fiber_leave(fiber *f)
{
    swapcontext((ucontext_t *)f->stack_pointer, &scheduler);
}

} // namespace emu

#endif
