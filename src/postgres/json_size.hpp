// What it is: how deep a jsonb is, and how long its text, without making the text of one that is too long.
// Who calls it: whoever is given one by a user, before it is walked or made a text.
// Never: recurses; needs more memory than the text of one number.
#pragma once

#include "postgres/prelude.hpp"

extern "C" {
#include "utils/jsonb.h"
}

namespace eventbus {

struct JsonMeasures {
    Size depth;  // 1: an object or array of scalars
    Size bytes;  // of the text, in the database's encoding
};

// Looks no further once one of the limits is exceeded.
JsonMeasures measure_json(Jsonb* json, const JsonMeasures& most);

}  // namespace eventbus
