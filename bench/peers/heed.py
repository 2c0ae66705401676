"""The C library through ctypes: a problem planned once and executed on memory that others share."""

import ctypes


class Heed:
    def __init__(self, path):
        self.lib = lib = ctypes.CDLL(path)
        lib.heed_last_error.restype = ctypes.c_char_p
        lib.heed_problem_desc.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]
        lib.heed_plan_create.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_void_p),
        ]
        lib.heed_plan_workspace.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.POINTER(ctypes.c_size_t),
        ]
        lib.heed_plan_execute.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
        ]
        self.context = ctypes.c_void_p()
        # NULL: defaults and the environment, HEED_IMPL and HEED_NUM_THREADS among it.
        self.check(lib.heed_context_create(None, ctypes.byref(self.context)))

    def check(self, status):
        if status:
            raise RuntimeError(self.lib.heed_last_error().decode())

    def plan(self, text):
        problem, desc, plan = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.lib.heed_problem_parse(text.encode(), ctypes.byref(problem)))
        self.check(self.lib.heed_problem_desc(problem, ctypes.byref(desc)))
        op = text.split()[0].encode()
        self.check(self.lib.heed_plan_create(self.context, op, desc, ctypes.byref(plan)))
        return plan

    def runner(self, text, addresses):
        """A callable that executes the problem on operands at these addresses."""
        plan = self.plan(text)
        size, alignment = ctypes.c_size_t(), ctypes.c_size_t()
        self.check(
            self.lib.heed_plan_workspace(plan, ctypes.byref(size), ctypes.byref(alignment))
        )
        memory = ctypes.create_string_buffer(size.value + 64)
        workspace = ctypes.c_void_p((ctypes.addressof(memory) + 63) // 64 * 64)
        buffers = (ctypes.c_void_p * len(addresses))(*addresses)

        def run(keep=memory):
            self.check(
                self.lib.heed_plan_execute(
                    plan, buffers, len(addresses), workspace, size, None
                )
            )

        return run
