// What it is: rabbitmq-c's headers, wherever its version has them (0.12 moved them).
// Who calls it: what encodes or decodes.
// Never: more than that.
#pragma once

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif
