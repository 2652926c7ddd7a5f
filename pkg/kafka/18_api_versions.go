package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions (18): what the server speaks. The first request of most
// clients.
//
// Versions 0-4. The header of the answer is always v0 (KIP-511). A version
// above ours gets the body of v0 with UNSUPPORTED_VERSION and the range of
// this key, from which the client learns what to ask with; its own body is
// not read.
//
//   - v3 flexible; features are left out: clients take their absence for the
//     classic protocols, and a minimum of 0 breaks Java (KAFKA-17011).

func (s *Server) apiVersions(_ context.Context, _ *conn, req *kmsg.ApiVersionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrApiVersionsResponse()
	if req.Version >= 3 && (!validSoftware(req.ClientSoftwareName) || !validSoftware(req.ClientSoftwareVersion)) {
		resp.ErrorCode = s.fail(codeInvalidRequest)
		return resp, nil
	}
	resp.ApiKeys = make([]kmsg.ApiVersionsResponseApiKey, len(s.apis))
	for i := range s.apis {
		resp.ApiKeys[i] = advertise(&s.apis[i])
	}
	return resp, nil
}

func advertise(a *api) kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.min, a.max
	return k
}

func (s *Server) unsupportedApiVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = s.fail(codeUnsupportedVersion)
	resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{advertise(s.byKey[keyApiVersions])}
	return resp
}

// validSoftware is Kafka's rule for the names of client software (KIP-511):
// [a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?
func validSoftware(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case (c == '-' || c == '.') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}
