// What it is: running what may fail because of one event, row or route, so that it fails for that one alone.
// Who calls it: whoever makes events, stores dead letters, or shows routes.
// Never: swallows what is nobody's fault: a shortage, a cancelled statement, a conflict of transactions.
#pragma once

#include "postgres/prelude.hpp"

namespace eventbus {

// Of an error that has nothing to do with the data at hand, and is not there the next time.
bool is_passing(int sqlstate);

// Runs work in a subtransaction. nullptr: it went well. Otherwise all of it is undone, and this is why, in the memory
// context that is current; errors that pass are thrown on. Wants a transaction.
ErrorData* attempt_by(void (*work)(void*), void* argument);
template <class Work>
ErrorData* attempt(Work&& work) {
    return attempt_by([](void* argument) { (*static_cast<Work*>(argument))(); }, &work);
}

// Message and detail.
const char* words_of(const ErrorData* error);

}  // namespace eventbus
