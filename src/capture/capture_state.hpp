// What it is: what a capture trigger knows of its table: columns, key, topics; looked up once a session.
// Who calls it: the trigger function.
// Never: survives a change of the table, of its schema's name, of the trigger, or of what its types become JSON by.
#pragma once

#include "capture/capture.hpp"
#include "postgres/type_json.hpp"

extern "C" {
#include "commands/trigger.h"
}

namespace eventbus::capture {

enum class Operation : unsigned char { insert, update, remove, truncate };
inline constexpr int operation_count = 4;

struct CapturedColumn {
    int index;   // of the value in a deformed tuple
    char* name;  // as a JSON string
    int name_length;
    bool shown;  // in the payload
    bool in_key;
    int16 length;
    bool by_value;
    JsonType json;
    FmgrInfo output;  // for the key
};

// What follows the rows in the envelope, up to ts_ms, with phrases.
struct CaptureSource {
    char* text;
    int length;
};

struct CaptureState {
    Oid trigger;       // the hash key
    Oid relations[2];  // the table, and the one that the trigger was made on (a partition's ancestor)
    bool stale;
    MemoryContext memory;  // of what follows
    JsonWalk* walk;
    CapturePayload payload;
    bool unchanged;
    text* topics[operation_count];
    CapturedColumn* columns;  // live ones, in order
    int column_count;
    int* key;  // positions in columns
    int key_count;
    CaptureSource sources[operation_count];
    Datum extra_headers;  // jsonb, or 0
};

// The state of the trigger that is being fired.
CaptureState* capture_state(TriggerData* trigger);

}  // namespace eventbus::capture
