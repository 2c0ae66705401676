/* Heed: the attention library for C.
 *
 * Start with heed_context_create, describe a problem (attention.h, cast.h), and run it in one call
 * or plan it once and execute it many times (plan.h). Every function returns a status or cannot
 * fail; heed_last_error() holds the sentence. Nothing aborts, exits, throws or prints.
 *
 *     status.h     statuses and the last error       device.h     the machine
 *     tensor.h     tensors and dtypes                plan.h       plan, workspace, execute, explain
 *     context.h    contexts, policy, environment     impl.h       implementations, your own too
 *     attention.h  attention                         problem.h    problems as text
 *     cast.h       casts                             memory.h     memory and streams of a device
 *     dilated.h    dilated attention                 tiles.h      tile lists: sparse attention
 *     ring.h       streaming and ring attention      comm.h       ranks and their messages
 *     merge.h      merging of partial states         kv.h         appending to a cache of keys
 *     scaling.h    scales over time, errors          split.h      parts of tensors and models
 *     pipeline.h   stages and their schedules */
#ifndef HEED_HEED_H
#define HEED_HEED_H

#include "version.h"
#include "status.h"
#include "tensor.h"
#include "context.h"
#include "device.h"
#include "plan.h"
#include "impl.h"
#include "memory.h"
#include "problem.h"
#include "scaling.h"
#include "attention.h"
#include "cast.h"
#include "merge.h"
#include "kv.h"
#include "tiles.h"
#include "dilated.h"
#include "comm.h"
#include "ring.h"
#include "split.h"
#include "pipeline.h"

#endif
