;;; regions.scm --- what a policy may ask about regions and clients.
;;;
;;; Accessors come from the host; `all-regions` is the regions of the tree in
;;; force, so that a policy written with it needs no edit when one is added.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide all-regions region-id region-country region-jurisdiction region-law
         region-state region-primary? region-has-feature? region-has-features? region-max-instances
         client-country client-continent client-law region-distance
         region-continent same-continent? region-ids)

;; From the host:

;;@doc (all-regions)
;; The regions of the tree in force, in order of their ids.
;; > (list? (all-regions))
;; = #true

;;@doc (region-id region)
;; Its name, a symbol.
;; > (region-id (sample-region 'eu-west))
;; = eu-west

;;@doc (region-country region)
;; The country where its machines stand, two capital letters.
;; > (region-country (sample-region 'eu-west #:country "IE"))
;; = "IE"

;;@doc (region-jurisdiction region)
;; The country whose law governs it, two capital letters.
;; > (region-jurisdiction (sample-region 'a #:country "IE" #:jurisdiction "US"))
;; = "US"

;;@doc (region-law region)
;; The body of law that follows: eea, other, or a country as a symbol, such as US.
;; > (region-law (sample-region 'a #:country "DE"))
;; = eea
;; > (region-law (sample-region 'a #:country "US"))
;; = US

;;@doc (region-state region)
;; Its health: joining, ready, suspect, down, catching-up, degraded, draining or evacuated.
;; > (region-state (sample-region 'a #:state 'down))
;; = down

;;@doc (region-primary? region)
;; #t for the preferred primary.
;; > (region-primary? (sample-region 'a #:primary #t))
;; = #true

;;@doc (region-has-feature? region feature)
;; #t when the region offers the feature.
;; > (region-has-feature? (sample-region 'a) 'websockets)
;; = #true

;;@doc (region-has-features? region features)
;; #t when the region offers every feature of the list.
;; > (region-has-features? (sample-region 'a) '(full-api batch-processing))
;; = #false

;;@doc (region-max-instances region)
;; How many instances it can grow to.
;; > (region-max-instances (sample-region 'a #:max-instances 60))
;; = 60

;;@doc (client-country client)
;; Two capital letters, or #f where the country is not known.
;; > (client-country (sample-client))
;; = #false

;;@doc (client-continent client)
;; AF AN AS EU NA OC SA as a text, or #f.
;; > (client-continent (sample-client #:continent "EU"))
;; = "EU"

;;@doc (client-law client)
;; The body of law of the client's country, as `region-law` gives it; none where the country is not known.
;; > (client-law (sample-client #:country "DE"))
;; = eea

;;@doc (region-distance region client)
;; Great-circle distance in whole km to the middle of the client's country; #f where that is not known.
;; > (region-distance (sample-region 'a) (sample-client #:latitude 0.0 #:longitude 90.0))
;; = 10008

;; By the continent codes that `client-continent` uses: every country that stands in
;; the runtime's table of cloud regions (runtime/config/data), and some neighbours.
(define continents
  '(("EU" "AT" "BE" "CH" "DE" "DK" "ES" "FI" "FR" "GB" "GR" "IE" "IT" "NL" "NO" "PL" "SE")
    ("NA" "CA" "MX" "US")
    ("SA" "BR" "CL")
    ("AS" "AE" "BH" "CN" "HK" "ID" "IL" "IN" "JP" "KR" "MY" "QA" "SA" "SG" "TH" "TW")
    ("OC" "AU" "NZ")
    ("AF" "ZA")))

;; The same by country: it is asked for every region of every client class.
(define continent-of
  (foldl (lambda (row known)
           (foldl (lambda (country known) (hash-insert known country (car row))) known (cdr row)))
         (hash)
         continents))

;;@doc
;; "EU", "NA" and so on, by the country where the region stands; #f where it is not listed.
;; > (region-continent (sample-region 'a #:country "SG"))
;; = "AS"
(define (region-continent region)
  (define country (region-country region))
  (and (hash-contains? continent-of country) (hash-ref continent-of country)))

;;@doc
;; #t when client and region are known to be on one continent.
;; > (same-continent? (sample-region 'a #:country "IE") (sample-client #:country "DE" #:continent "EU"))
;; = #true
(define (same-continent? region client)
  (define continent (client-continent client))
  (and continent (equal? continent (region-continent region))))

;;@doc
;; The ids of the regions, in their order.
;; > (region-ids (list (sample-region 'b) (sample-region 'a)))
;; = (b a)
(define (region-ids regions)
  (map region-id regions))
