#include "postgres/json_size.hpp"

#include <algorithm>

extern "C" {
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
}

namespace eventbus {

namespace {

// What escape_json makes of it.
Size length_of_string(const char* text, int length) {
    Size bytes = 2;
    for (int i = 0; i < length; ++i) {
        const auto c = static_cast<unsigned char>(text[i]);
        if (c == '"' || c == '\\' || (c < 0x20 && strchr("\b\f\n\r\t", c) != nullptr))
            bytes += 2;
        else
            bytes += c < 0x20 ? 6 : 1;
    }
    return bytes;
}

Size length_of_number(Numeric number) {
    char* text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
    const Size length = strlen(text);
    pfree(text);
    return length;
}

Size length_of(const JsonbValue& value) {
    switch (value.type) {
        case jbvString:
            return length_of_string(value.val.string.val, value.val.string.len);
        case jbvNumeric:
            return length_of_number(value.val.numeric);
        case jbvBool:
            return value.val.boolean ? 4 : 5;
        default:
            return 4;  // null
    }
}

}  // namespace

JsonMeasures measure_json(Jsonb* json, const JsonMeasures& most) {
    JsonMeasures found = {};
    Size depth = 0;
    JsonbValue value;
    JsonbIterator* at = JsonbIteratorInit(&json->root);
    for (JsonbIteratorToken token; (token = JsonbIteratorNext(&at, &value, false)) != WJB_DONE;) {
        switch (token) {
            case WJB_BEGIN_ARRAY:
            case WJB_BEGIN_OBJECT:
                found.depth = std::max(found.depth, ++depth);
                found.bytes += 2;
                break;
            case WJB_END_ARRAY:
            case WJB_END_OBJECT:
                --depth;
                found.bytes += 2;  // and a comma with its space
                break;
            default:
                found.bytes += length_of(value) + 2;
        }
        if (found.depth > most.depth || found.bytes > most.bytes) break;
    }
    return found;
}

}  // namespace eventbus
