// What it is: our secrets taken out of other people's words.
// Who calls it: whatever stands between a driver and delivery (broker/stream/redacted_driver.hpp).
// Never: shows a piece of a secret that is long enough to be told from other words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/broker_settings.hpp"

namespace eventbus {

class Secrets {
 public:
    // The password, as it is and in the encodings in which it is sent or may come back.
    explicit Secrets(const BrokerSettings& settings);

    // The text with "***" in the place of every secret. Also of pieces of eight bytes and more, and of a shorter
    // beginning where the text was cut: at its end, or before "...". Of a secret of less than four bytes only where
    // it stands as a word by itself.
    std::string scrubbed(std::string_view text) const;

 private:
    std::vector<std::string> secrets_;
};

}  // namespace eventbus
