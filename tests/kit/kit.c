/* The operations that the kit knows: those of src/common/impls.def. One that is new there needs a
 * kit_op_NAME here, or nothing links. */
#include "kit.h"

#include <string.h>

#define HEED_OP(name) extern const kit_op_t kit_op_##name;
#define HEED_IMPL(op, symbol)
#include "impls.def"
#undef HEED_OP

static const kit_op_t *const ops[] = {
#define HEED_OP(name) &kit_op_##name,
#include "impls.def"
#undef HEED_OP
#undef HEED_IMPL
};

enum { OPS = sizeof(ops) / sizeof(ops[0]) };

const kit_op_t *kit_op_at(int index)
{
    return index >= 0 && index < (int)OPS ? ops[index] : NULL;
}

const kit_op_t *kit_op_find(const char *op)
{
    for (int i = 0; i < (int)OPS; i++)
        if (strcmp(ops[i]->op, op) == 0)
            return ops[i];
    return NULL;
}
