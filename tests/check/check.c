/* heed-check: every implementation of impls.def against cpu:standard, on the corners of its
 * operation and on random problems. A failure prints one command that repeats it. */
#include "loop.h"

int main(int argc, char **argv)
{
    return kit_loop_main(argc, argv, NULL);
}
